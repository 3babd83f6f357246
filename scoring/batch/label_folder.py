"""Write the output folder of an annotation job.

For each image, the folder contains `labels/NAME.txt` (YOLO), `masks/NAME.png` and `objects/NAME.json`. For all images
together, it contains `annotations.json` (COCO), `data.yaml` (YOLO) and `sheet.png` (masks drawn over the first images).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sam_endpoint.model.errors import BadData, BadInput, OutputConflict
from sam_endpoint.model.images import ImageLimits, decode
from sam_endpoint.scoring.batch import labels
from sam_endpoint.scoring.batch.label_names import label_file
from sam_endpoint.scoring.batch.labels import LabelledImage, LabelledObject
from sam_endpoint.scoring.overlay import Shown, overlay, sheet

SHOWN = 6  # images in sheet.png
FOLDERS = {"labels": ".txt", "masks": ".png", "objects": ".json"}  # with the endings of their files
JOB = "job.json"
FILES = ("annotations.json", "data.yaml", "sheet.png")


class LabelFolder:
    """Folder of label files, in which an interrupted job can continue.

    The labels of an image are complete if its file in `objects` exists.

    Args:
        folder: the output folder. It is created if necessary.
        job: everything that determines the labels. A folder with another `job.json` is not continued.
        names: names of all categories by number.
        overwrite: whether to delete the labels of another job. The labels of the same job are continued.
        inputs: files and folders that must not be deleted.

    Raises:
        OutputConflict: the folder holds the labels of another job, or other files.
    """

    def __init__(
        self,
        folder: Path,
        job: dict[str, Any],
        names: dict[int, str],
        overwrite: bool = False,
        inputs: Sequence[Path] = (),
    ) -> None:
        self.folder, self.names = folder, names
        job_file = folder / JOB
        job = json.loads(json.dumps({**job, "names": {str(number): name for number, name in names.items()}}))
        if folder.exists() and not folder.is_dir():
            raise OutputConflict(f"'{folder}' is a file; --output must be a folder")
        earlier = _read_json(job_file)
        if earlier != job and overwrite:
            self._clear({"data", "names"} <= earlier.keys(), inputs)
        elif earlier != job and folder.exists() and any(folder.iterdir()):
            raise OutputConflict(
                f"'{folder}' holds other files, or the labels of another job; choose another --output, or replace the "
                "labels with --overwrite"
            )
        write(job_file, json.dumps(job, indent=1).encode())

    def _clear(self, is_job: bool, inputs: Sequence[Path]) -> None:
        """Delete the labels of another job. Raises OutputConflict if other files would be deleted."""
        for written in (self.folder / name for name in (*FOLDERS, *FILES, JOB)):
            for path in inputs:
                if written.resolve() in (path.resolve(), *path.resolve().parents):
                    raise OutputConflict(f"--overwrite would delete '{path}', an input; choose another --output")
            if not is_job and written.exists():
                raise OutputConflict(f"'{written}' was not written by this command; choose another --output")
        # The objects of an image are written last and deleted last, so that they tell which files are of the job.
        for objects in sorted((self.folder / "objects").rglob("*.json")):
            name = str(objects.relative_to(self.folder / "objects").with_suffix(""))
            for subfolder, ending in FOLDERS.items():
                (self.folder / subfolder / f"{name}{ending}").unlink(missing_ok=True)
        for name in FILES:
            (self.folder / name).unlink(missing_ok=True)

    def done(self, name: str, boxes: str = "") -> bool:
        """Return whether the labels of an image are complete and belong to the same boxes.

        Args:
            name: name of the image.
            boxes: hash of the image's boxes in the label files (`MatchedBoxes.identity`); empty without label files.
        """
        file = label_file(self.folder / "objects", name, ".json")
        return file.exists() and (not boxes or _read_json(file).get("boxes") == boxes)

    def put(self, labelled: LabelledImage, boxes: str = "") -> None:
        """Write the files of one image.

        Args:
            labelled: the image and its objects.
            boxes: as in `done`.
        """
        write(label_file(self.folder / "labels", labelled.name, ".txt"), labels.to_yolo(labelled, self.names).encode())
        picture = io.BytesIO()
        labels.draw_index_mask(labelled).save(picture, "PNG")
        write(label_file(self.folder / "masks", labelled.name, ".png"), picture.getvalue())
        content = asdict(labelled)
        content = {**content, "things": content.pop("objects"), "boxes": boxes}
        write(label_file(self.folder / "objects", labelled.name, ".json"), json.dumps(content).encode())

    def get(self, name: str) -> LabelledImage:
        """Read the objects of one image from its file. Raises BadData if the file is damaged."""
        file = label_file(self.folder / "objects", name, ".json")
        try:
            content = json.loads(file.read_bytes())
            objects = [LabelledObject(**entry) for entry in content["things"]]
            return LabelledImage(content["name"], tuple(content["size"]), objects, content.get("skipped", []))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise BadData(f"'{file}' is damaged; delete it and run the same command again") from None

    def finish(self, images: Mapping[str, Path], polygons: bool) -> list[LabelledImage]:
        """Write the files for all images together.

        Args:
            images: paths of the images by name. Images without complete labels are left out.
            polygons: whether the COCO file has polygons instead of run lengths.

        Returns:
            The labels of the images that have complete labels.
        """
        done = [self.get(name) for name in images if self.done(name)]
        for name in images.keys() - {labelled.name for labelled in done}:  # `put` may have ended early
            for subfolder, ending in FOLDERS.items():
                label_file(self.folder / subfolder, name, ending).unlink(missing_ok=True)
        write(self.folder / "annotations.json", json.dumps(labels.to_coco(done, self.names, polygons)).encode())
        root = str(next(iter(images.values())).absolute())[: -len(next(iter(images)))]
        described = {"path": root, "train": ".", "val": ".", "names": labels.yolo_classes(self.names)}
        write(self.folder / "data.yaml", yaml.safe_dump(described, sort_keys=False).encode())
        pictures = []
        for labelled in [labelled for labelled in done if labelled.objects][:SHOWN]:
            try:
                pixels = decode(images[labelled.name].read_bytes(), ImageLimits(), upright=True)
            except (BadInput, OSError):
                continue
            if pixels.shape[:2] == labelled.size:  # else the file has changed after it was annotated
                shown = [Shown(labelled.mask(obj), obj.score, _corners(obj.bbox)) for obj in labelled.objects]
                pictures.append(overlay(pixels, shown))
        if pictures:
            sheet(pictures).save(self.folder / "sheet.png")
        return done


def _read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Returns an empty dict if the file is missing or has other content."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _corners(bbox: Sequence[float]) -> np.ndarray:
    """Convert x, y, width, height to `(4,)` x1, y1, x2, y2."""
    x, y, width, height = bbox
    return np.array([x, y, x + width, y + height])


def write(file: Path, content: bytes) -> None:
    """Write a file atomically and create its folder if necessary."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(file)
