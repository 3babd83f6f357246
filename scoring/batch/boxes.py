"""Boxes that exist already: YOLO's text files, a COCO json, Pascal VOC's xml files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from model.errors import BadInput, kind
from scoring.batch.sources import BadTable


@dataclass(frozen=True)
class Detection:
    """A box (4,) x1, y1, x2, y2 in pixels, its category's number, its score."""

    box: np.ndarray
    category: int
    score: float = 1.0


@dataclass(frozen=True)
class Boxes:
    """The categories' names by number, and an image's boxes by its name and size (height, width).

    `of` gives no boxes for an image that the files do not speak of, and raises BadInput for one whose file is broken.
    """

    names: dict[int, str]
    of: Callable[[str, tuple[int, int]], list[Detection]]


def read(where: Path) -> Boxes:
    """The boxes in a COCO .json, or in a folder of YOLO .txt or Pascal VOC .xml files named like the images.

    Raises BadTable.
    """
    if where.suffix.lower() == ".json":
        return _coco(where)
    if not where.is_dir():
        raise BadTable(f"'{where}': expected a COCO .json or a folder of .txt (YOLO) or .xml (Pascal VOC) files")
    if any(where.rglob("*.xml")):
        return _voc(where)
    if any(where.rglob("*.txt")):
        return _yolo(where)
    raise BadTable(f"'{where}' holds no .txt (YOLO) and no .xml (Pascal VOC) files")


def _coco(file: Path) -> Boxes:
    try:
        given = json.loads(file.read_text())
        names = {int(one["id"]): str(one["name"]) for one in given["categories"]}
        by_id: dict[int, list[dict[str, Any]]] = {}
        for one in given["annotations"]:
            by_id.setdefault(one["image_id"], []).append(one)
        by_name = {str(one["file_name"]): by_id.get(one["id"], []) for one in given["images"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        lack = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise BadTable(f"'{file}' is no COCO file with images, annotations and categories: {lack}") from None

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        found = []
        for one in by_name.get(name, by_name.get(PurePosixPath(name).name, [])):
            try:
                x, y, width, height = (float(number) for number in one["bbox"])
                box = np.array([x, y, x + width, y + height], np.float32)
                if int(one["category_id"]) not in names:
                    raise ValueError
                found.append(Detection(box, int(one["category_id"]), float(one.get("score", 1.0))))
            except (KeyError, TypeError, ValueError):
                expected = "bbox [x, y, width, height] and a known category_id"
                raise BadInput(f"annotation {one.get('id')}", expected, kind(one.get("bbox"))) from None
        return found

    return Boxes(names, of)


def _yolo(folder: Path) -> Boxes:
    names = _yolo_names(folder)

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        height, width = size
        file = (folder / name).with_suffix(".txt")
        lines = file.read_text().splitlines() if file.exists() else []
        found = []
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
            found.append(Detection(box.astype(np.float32), int(category)))
        return found

    return Boxes(names, of)


def _yolo_box(numbers: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 in 0..1 of centre and size, or of the points of an outline."""
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1:
        raise ValueError
    if len(numbers) in (4, 5):  # the fifth would be a confidence
        return np.concatenate([numbers[:2] - numbers[2:4] / 2, numbers[:2] + numbers[2:4] / 2])
    points = numbers.reshape(-1, 2)
    if len(points) < 3:
        raise ValueError
    return np.concatenate([points.min(0), points.max(0)])


def _yolo_names(folder: Path) -> dict[int, str]:
    for place in (folder, *folder.absolute().parents[:2]):
        for file in (place / "data.yaml", place / "dataset.yaml"):
            if file.exists():
                try:
                    names = yaml.safe_load(file.read_text())["names"]
                except (yaml.YAMLError, KeyError, TypeError, ValueError):
                    raise BadTable(f"'{file}' has no 'names' of classes") from None
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
    return {}


def _voc(folder: Path) -> Boxes:
    """Pascal VOC counts pixels from 1, and its largest ones are within the box."""
    kinds: set[str] = set()
    for file in folder.rglob("*.xml"):
        try:
            kinds.update(one.text or "" for one in ElementTree.parse(file).iterfind("object/name"))
        except ElementTree.ParseError:
            continue  # told when its image's turn comes
    names = dict(enumerate(sorted(kinds)))
    numbers = {name: number for number, name in names.items()}

    def of(name: str, size: tuple[int, int]) -> list[Detection]:
        file = (folder / name).with_suffix(".xml")
        if not file.exists():
            return []
        found = []
        try:
            for one in ElementTree.parse(file).iterfind("object"):
                x1, y1, x2, y2 = (
                    float(one.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
                )
                box = np.array([x1 - 1, y1 - 1, x2, y2], np.float32)
                found.append(Detection(box, numbers[one.findtext("name", "")]))
        except (ElementTree.ParseError, ValueError, KeyError) as error:
            raise BadInput(file.name, "objects with a name and a bndbox", str(error) or "none") from None
        return found

    return Boxes(names, of)
