"""Read boxes from YOLO text files, a COCO JSON file or Pascal VOC XML files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from sam_endpoint.model.errors import BadData, BadInput, kind


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels.
        category: number of the category.
        score: confidence in 0..1.
    """

    box: np.ndarray
    category: int
    score: float = 1.0


@dataclass(frozen=True)
class Boxes:
    """Categories and boxes from label files.

    Attributes:
        names: names of the categories by number.
        of: returns the boxes of an image by its name and size (height, width); empty for an image that the files do
            not mention. Raises BadInput if the label file of that image is malformed.
    """

    names: dict[int, str]
    of: Callable[[str, tuple[int, int]], list[Detection]]


def read(path: Path) -> Boxes:
    """Read a COCO .json file, or a folder of YOLO .txt or Pascal VOC .xml files named like the images.

    Raises:
        BadData: the path contains no such files, or the COCO file is malformed.
    """
    if path.suffix.lower() == ".json":
        return _coco(path)
    if not path.is_dir():
        raise BadData(f"'{path}': expected a COCO .json or a folder of .txt (YOLO) or .xml (Pascal VOC) files")
    if any(path.rglob("*.xml")):
        return _voc(path)
    if any(path.rglob("*.txt")):
        return _yolo(path)
    raise BadData(f"'{path}' holds no .txt (YOLO) and no .xml (Pascal VOC) files")


def _coco(file: Path) -> Boxes:
    """Read a COCO instances file."""
    try:
        content = json.loads(file.read_text())
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
        by_id: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            by_id.setdefault(annotation["image_id"], []).append(annotation)
        by_name = {str(image["file_name"]): by_id.get(image["id"], []) for image in content["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadData(f"'{file}' is no COCO file with images, annotations and categories: {problem}") from None

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        detections = []
        for annotation in by_name.get(name, by_name.get(PurePosixPath(name).name, [])):
            try:
                x, y, width, height = (float(number) for number in annotation["bbox"])
                box = np.array([x, y, x + width, y + height], np.float32)
                if int(annotation["category_id"]) not in names:
                    raise ValueError
                detections.append(Detection(box, int(annotation["category_id"]), float(annotation.get("score", 1.0))))
            except (KeyError, TypeError, ValueError):
                expected = "bbox [x, y, width, height] and a known category_id"
                raise BadInput(f"annotation {annotation.get('id')}", expected, kind(annotation.get("bbox"))) from None
        return detections

    return Boxes(names, of)


def _yolo(folder: Path) -> Boxes:
    """Read a folder of YOLO text files, one per image."""
    names = _yolo_names(folder)

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        height, width = size
        file = (folder / name).with_suffix(".txt")
        lines = file.read_text().splitlines() if file.exists() else []
        detections = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                category, *numbers = (float(word) for word in line.split())
                box = _yolo_box(np.array(numbers, np.float32)) * (width, height, width, height)
            except ValueError:
                expected = "class x y width height (or an outline) in 0..1"
                raise BadInput(f"{file.name} line {number}", expected, f"'{line[:60]}'") from None
            names.setdefault(int(category), f"class {int(category)}")
            detections.append(Detection(box.astype(np.float32), int(category)))
        return detections

    return Boxes(names, of)


def _yolo_box(numbers: np.ndarray) -> np.ndarray:
    """Return (4,) x1, y1, x2, y2 in 0..1 from a centre and size, or from the points of an outline."""
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1:
        raise ValueError
    if len(numbers) in (4, 5):  # the optional fifth number is a confidence
        return np.concatenate([numbers[:2] - numbers[2:4] / 2, numbers[:2] + numbers[2:4] / 2])
    points = numbers.reshape(-1, 2)
    if len(points) < 3:
        raise ValueError
    return np.concatenate([points.min(0), points.max(0)])


def _yolo_names(folder: Path) -> dict[int, str]:
    """Read the class names from a data.yaml in the folder or in one of its two parents."""
    for parent in (folder, *folder.absolute().parents[:2]):
        for file in (parent / "data.yaml", parent / "dataset.yaml"):
            if file.exists():
                try:
                    names = yaml.safe_load(file.read_text())["names"]
                except (yaml.YAMLError, KeyError, TypeError, ValueError):
                    raise BadData(f"'{file}' has no 'names' of classes") from None
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
    return {}


def _voc(folder: Path) -> Boxes:
    """Read Pascal VOC files, in which pixel coordinates begin at 1 and the maxima are inclusive."""
    categories: set[str] = set()
    for file in folder.rglob("*.xml"):
        try:
            categories.update(name.text or "" for name in ElementTree.parse(file).iterfind("object/name"))
        except ElementTree.ParseError:
            continue  # reported when the boxes of its image are read
    names = dict(enumerate(sorted(categories)))
    numbers = {name: number for number, name in names.items()}

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        file = (folder / name).with_suffix(".xml")
        if not file.exists():
            return []
        detections = []
        try:
            for element in ElementTree.parse(file).iterfind("object"):
                x1, y1, x2, y2 = (
                    float(element.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
                )
                box = np.array([x1 - 1, y1 - 1, x2, y2], np.float32)
                detections.append(Detection(box, numbers[element.findtext("name", "")]))
        except (ElementTree.ParseError, ValueError, KeyError) as error:
            raise BadInput(file.name, "objects with a name and a bndbox", str(error) or "none") from None
        return detections

    return Boxes(names, of)
