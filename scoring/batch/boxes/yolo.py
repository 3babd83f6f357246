"""Read boxes from YOLO text files, one per image, and the class names beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes.found import Boxes, Detection, ImageBoxes, Size, list_files
from sam_endpoint.scoring.batch.boxes.text import read_lines, read_text
from sam_endpoint.scoring.batch.files import files_in, shown

EXPECTED = "class x y width height (or an outline) in 0..1"
NAMES = ("data.yaml", "dataset.yaml", "classes.txt")
MAX_CLASS = 99_999


def label_files(folder: Path, without: Path | None = None) -> list[Path]:
    """Return the text files in a folder and its subfolders, but no lists of class names. Raises OSError."""
    return [file for file in files_in(folder, (".txt",), without) if file.name not in NAMES]


def read(folder: Path, files: Sequence[Path]) -> Boxes:
    """Read a folder of YOLO text files.

    Classes without a name are called `class 3`.

    Raises:
        BadData: the class names cannot be read.
    """
    names = read_names(folder)
    for number in range(max({*names, *used_classes(files)}, default=-1) + 1):
        names.setdefault(number, f"class {number}")
    return Boxes(folder, names, list_files(folder, files, _boxes))


def used_classes(files: Sequence[Path]) -> set[int]:
    """Return the numbers of the classes in label files. Files that cannot be read are reported with their image."""
    used: set[int] = set()
    for file in files:
        try:
            used.update(detection.category for detection in _boxes(file, (1, 1)).detections)
        except (BadData, OSError):
            continue
    return used


def _boxes(file: Path, size: Size) -> ImageBoxes:
    """Return the boxes of one label file. Raises BadData and OSError."""
    height, width = size
    detections, skipped = [], []
    try:
        lines = read_lines(file)
    except ValueError:
        raise BadData(f"'{file.name}' is not text in UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        origin = f"{file.name} line {number}"
        try:
            category, *numbers = (float(word) for word in line.split())
            if not 0 <= category <= MAX_CLASS or not category.is_integer():
                raise ValueError
            box = _box(np.array(numbers)) * (width, height, width, height)
        except ValueError:
            skipped.append(f"{origin}: expected {EXPECTED}, got {line[:60]!r}")
            continue
        detections.append(Detection(box, int(category), origin=origin))
    return ImageBoxes(detections, skipped)


def _box(numbers: np.ndarray) -> np.ndarray:
    """Return (4,) x1, y1, x2, y2 in 0..1 from a centre and size, or from the points of an outline."""
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1:
        raise ValueError
    if len(numbers) in (4, 5):  # the optional fifth number is a confidence
        return np.concatenate([numbers[:2] - numbers[2:4] / 2, numbers[:2] + numbers[2:4] / 2])
    points = numbers.reshape(-1, 2)
    if len(points) < 3:
        raise ValueError
    return np.concatenate([points.min(0), points.max(0)])


def read_names(folder: Path) -> dict[int, str]:
    """Read the class names from the folder or one of its two parents, the nearest first.

    A `data.yaml` or `dataset.yaml` has a list or dict `names`; a `classes.txt` has a name a line.

    Raises:
        BadData: there is such a file without class names.
    """
    for parent in (folder, *folder.absolute().parents[:2]):
        for file in (parent / name for name in NAMES):
            if file.exists():
                return read_classes(file) if file.suffix == ".txt" else _names_of_yaml(file)
    return {}


def read_classes(file: Path) -> dict[int, str]:
    """Read a file with a class name a line. Raises BadData."""
    try:
        lines = read_lines(file)
    except (OSError, ValueError) as error:
        raise BadData(f"'{file}' cannot be read as class names: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return {number: line.strip() for number, line in enumerate(lines)}


def _names_of_yaml(file: Path) -> dict[int, str]:
    try:
        # The base loader keeps every name as its text, where YAML has a boolean `no` and a number 1.0.
        content = yaml.load(read_text(file), yaml.BaseLoader)
        names = content["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else None
        numbered = {int(number): name for number, name in pairs or ()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise BadData(f"'{file}' has no 'names' of classes") from None
    if pairs is None or not all(isinstance(name, str) for name in numbered.values()):
        raise BadData(f"'{file}': expected a list of class names, or a dict of them by number, as 'names'")
    if not all(0 <= number <= MAX_CLASS for number in numbered):
        raise BadData(f"'{file}': expected class numbers from 0 to {MAX_CLASS} in 'names'")
    return {number: shown(name) for number, name in numbered.items()}
