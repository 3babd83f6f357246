"""A folder that fills with label files: `labels/*.txt` (YOLO), `masks/*.png`, `objects/*.json`, and over all of them
`annotations.json` (COCO), `data.yaml` (YOLO) and `sheet.png` (overlays to look at)."""

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

from model.images import ImageLimits, decode
from scoring.batch import labels
from scoring.batch.labels import Labelled, Thing
from scoring.batch.parts import OtherJob
from scoring.overlay import Shown, overlay, sheet

SHOWN = 6


class LabelFolder:
    """A folder of label files, in which an image is done when its file in `objects` is there."""

    def __init__(self, folder: Path, job: dict[str, Any], overwrite: bool = False) -> None:
        """`job`: what the labels depend on. Raises OtherJob for a folder that holds another one's."""
        self.folder = folder
        noted = folder / "job.json"
        job = json.loads(json.dumps(job))
        if folder.exists() and any(folder.iterdir()) and not overwrite:
            before = json.loads(noted.read_text()) if noted.exists() else None
            if before != job:
                raise OtherJob(
                    f"'{folder}' holds something else; choose another --output, or start anew with --overwrite"
                )
        if overwrite:
            for name in ("labels", "masks", "objects"):
                shutil.rmtree(folder / name, ignore_errors=True)
        write(noted, json.dumps(job, indent=1).encode())

    def done(self, name: str) -> bool:
        return beside(self.folder / "objects", name, ".json").exists()

    def put(self, labelled: Labelled) -> None:
        """Writes an image's own files."""
        write(beside(self.folder / "labels", labelled.name, ".txt"), labels.yolo(labelled).encode())
        picture = io.BytesIO()
        labels.numbered(labelled).save(picture, "PNG")
        write(beside(self.folder / "masks", labelled.name, ".png"), picture.getvalue())
        write(beside(self.folder / "objects", labelled.name, ".json"), json.dumps(asdict(labelled)).encode())

    def get(self, name: str) -> Labelled:
        found = json.loads(beside(self.folder / "objects", name, ".json").read_text())
        return Labelled(found["name"], tuple(found["size"]), [Thing(**one) for one in found["things"]])

    def finish(self, images: Mapping[str, Path], names: dict[int, str], polygons: bool) -> Counter[str]:
        """Writes what is over all images; the number of objects by category."""
        done = [self.get(name) for name in images if self.done(name)]
        used = {one.category: f"class {one.category}" for labelled in done for one in labelled.things}
        names = {**used, **names}
        write(self.folder / "annotations.json", json.dumps(labels.coco(done, names, polygons)).encode())
        root = str(next(iter(images.values())).absolute())[: -len(next(iter(images)))]
        described = {"path": root, "train": ".", "val": ".", "names": dict(sorted(names.items()))}
        write(self.folder / "data.yaml", yaml.safe_dump(described, sort_keys=False).encode())
        pictures = []
        for labelled in [one for one in done if one.things][:SHOWN]:
            pixels = decode(images[labelled.name].read_bytes(), ImageLimits())
            shown = [Shown(labelled.mask(one), one.score, _corners(one.bbox)) for one in labelled.things]
            pictures.append(overlay(pixels, shown))
        if pictures:
            sheet(pictures).save(self.folder / "sheet.png")
        return Counter(names[one.category] for labelled in done for one in labelled.things)


def _corners(bbox: Sequence[float]) -> np.ndarray:
    x, y, width, height = bbox
    return np.array([x, y, x + width, y + height])


def beside(folder: Path, name: str, suffix: str) -> Path:
    return (folder / name).with_suffix(suffix)


def write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(file)
