"""Output folder of an annotation job.

Contains `labels/*.txt` (YOLO), `masks/*.png` and `objects/*.json` per image, and `annotations.json` (COCO), `data.yaml`
(YOLO) and `sheet.png` (overlays) for all images.
"""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.model.images import ImageLimits, decode
from sam_endpoint.scoring.batch import labels
from sam_endpoint.scoring.batch.labels import Labelled, Thing
from sam_endpoint.scoring.overlay import Shown, overlay, sheet

SHOWN = 6


class LabelFolder:
    """Folder of label files; an image is done if its file in `objects` exists."""

    def __init__(self, folder: Path, job: dict[str, Any], overwrite: bool = False) -> None:
        """Open or create the folder.

        Args:
            folder: the output folder.
            job: everything that the labels depend on.
            overwrite: delete the labels of another job.

        Raises:
            OutputConflict: the folder holds the output of another job, or other files.
        """
        self.folder = folder
        job_file = folder / "job.json"
        job = json.loads(json.dumps(job))
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            before = json.loads(job_file.read_text()) if job_file.exists() else None
            if before != job:
                raise OutputConflict(
                    f"'{folder}' holds something else; choose another --output, or start anew with --overwrite"
                )
        if overwrite:
            for name in ("labels", "masks", "objects"):
                shutil.rmtree(folder / name, ignore_errors=True)
        write(job_file, json.dumps(job, indent=1).encode())

    def done(self, name: str) -> bool:
        """Return whether the labels of an image exist."""
        return beside(self.folder / "objects", name, ".json").exists()

    def put(self, labelled: Labelled) -> None:
        """Write the files of one image."""
        write(beside(self.folder / "labels", labelled.name, ".txt"), labels.yolo(labelled).encode())
        picture = io.BytesIO()
        labels.numbered(labelled).save(picture, "PNG")
        write(beside(self.folder / "masks", labelled.name, ".png"), picture.getvalue())
        write(beside(self.folder / "objects", labelled.name, ".json"), json.dumps(asdict(labelled)).encode())

    def get(self, name: str) -> Labelled:
        """Read the objects of one image."""
        content = json.loads(beside(self.folder / "objects", name, ".json").read_text())
        return Labelled(content["name"], tuple(content["size"]), [Thing(**thing) for thing in content["things"]])

    def finish(self, images: Mapping[str, Path], names: dict[int, str], polygons: bool) -> Counter[str]:
        """Write the files for all images; return the number of objects by category name."""
        done = [self.get(name) for name in images if self.done(name)]
        used = {thing.category: f"class {thing.category}" for labelled in done for thing in labelled.things}
        names = {**used, **names}
        write(self.folder / "annotations.json", json.dumps(labels.coco(done, names, polygons)).encode())
        root = str(next(iter(images.values())).absolute())[: -len(next(iter(images)))]
        described = {"path": root, "train": ".", "val": ".", "names": dict(sorted(names.items()))}
        write(self.folder / "data.yaml", yaml.safe_dump(described, sort_keys=False).encode())
        pictures = []
        for labelled in [labelled for labelled in done if labelled.things][:SHOWN]:
            pixels = decode(images[labelled.name].read_bytes(), ImageLimits())
            shown = [Shown(labelled.mask(thing), thing.score, _corners(thing.bbox)) for thing in labelled.things]
            pictures.append(overlay(pixels, shown))
        if pictures:
            sheet(pictures).save(self.folder / "sheet.png")
        return Counter(names[thing.category] for labelled in done for thing in labelled.things)


def _corners(bbox: Sequence[float]) -> np.ndarray:
    """Convert x, y, width, height to (4,) x1, y1, x2, y2."""
    x, y, width, height = bbox
    return np.array([x, y, x + width, y + height])


def beside(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of the label file of an image."""
    return (folder / name).with_suffix(suffix)


def write(file: Path, content: bytes) -> None:
    """Write a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(file)
