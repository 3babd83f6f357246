"""Read boxes and class names from YOLO text files, one per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes.box_labels import BoxLabels, Detection, ImageBoxes, Size, list_files
from sam_endpoint.scoring.batch.boxes.text import read_lines, read_text
from sam_endpoint.scoring.batch.files import files_in, printable_name

EXPECTED = "class x y width height (or an outline) in 0..1"
NAMES = ("data.yaml", "dataset.yaml", "classes.txt")
MAX_CLASS = 99_999


def label_files(folder: Path, without: Path | None = None) -> list[Path]:
    """Return the text files in a folder and its subfolders, except lists of class names. Raises OSError."""
    return [file for file in files_in(folder, (".txt",), without) if file.name not in NAMES]


def read(folder: Path, files: Sequence[Path]) -> BoxLabels:
    """Read the boxes in YOLO text files.

    Each line of a file is `class x y width height`, where x and y are the centre of the box, or
    `class x1 y1 x2 y2 x3 y3 ...`, the outline of an object. Coordinates are shares of the image's width and height.

    Args:
        folder: folder of the files. `read_names` finds the names of the classes there.
        files: the text files. Malformed files are reported when the boxes of their images are read.

    Returns:
        The classes and the boxes of each listed image. A class without a name gets a name such as `class 3`.

    Raises:
        BadData: the class names cannot be read, or two files belong to the same image.
    """
    names = read_names(folder)
    for number in range(max({*names, *used_classes(files)}, default=-1) + 1):
        names.setdefault(number, f"class {number}")
    return BoxLabels(folder, names, list_files(folder, files, _boxes))


def used_classes(files: Sequence[Path]) -> set[int]:
    """Return the numbers of the classes in label files. Malformed files are skipped; the job reports them later."""
    used: set[int] = set()
    for file in files:
        try:
            used.update(detection.category for detection in _boxes(file, (1, 1)).detections)
        except (BadData, OSError):
            continue
    return used


def _boxes(file: Path, size: Size) -> ImageBoxes:
    """Return the boxes in one file, for an image of `size` (height, width). Raises BadData and OSError."""
    height, width = size
    detections, skipped = [], []
    try:
        lines = read_lines(file)
    except ValueError:
        raise BadData(f"'{file.name}' is not UTF-8 text") from None
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
    """Convert a centre and size, or the points of an outline, to `(4,)` x1, y1, x2, y2 in 0..1. Raises ValueError."""
    if not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.max() > 1:
        raise ValueError
    if len(numbers) in (4, 5):  # the optional fifth number is a confidence
        return np.concatenate([numbers[:2] - numbers[2:4] / 2, numbers[:2] + numbers[2:4] / 2])
    points = numbers.reshape(-1, 2)
    if len(points) < 3:
        raise ValueError
    return np.concatenate([points.min(0), points.max(0)])


def read_names(folder: Path) -> dict[int, str]:
    """Read the names of the classes.

    The names are in the list or dict `names` of a `data.yaml` or `dataset.yaml`, or in a `classes.txt` with one name
    per line. The first of these files in the folder, its parent or its grandparent is read.

    Args:
        folder: folder of the label files.

    Returns:
        The names by number; empty if there is no such file.

    Raises:
        BadData: the file has no class names.
    """
    for parent in (folder, *folder.absolute().parents[:2]):
        for file in (parent / name for name in NAMES):
            if file.exists():
                return read_classes(file) if file.suffix == ".txt" else _names_of_yaml(file)
    return {}


def read_classes(file: Path) -> dict[int, str]:
    """Read a `classes.txt` file, which has one class name per line.

    Args:
        file: the file.

    Returns:
        The names by line number, starting at 0.

    Raises:
        BadData: the file cannot be read.
    """
    try:
        lines = read_lines(file)
    except (OSError, ValueError) as error:
        raise BadData(f"'{file}' cannot be read as class names: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return {number: line.strip() for number, line in enumerate(lines)}


def _names_of_yaml(file: Path) -> dict[int, str]:
    try:
        # The base loader reads every name as text. Other loaders would convert `no` to False and `1.0` to a number.
        content = yaml.load(read_text(file), yaml.BaseLoader)
        names = content["names"]
        pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else None
        numbered = {int(number): name for number, name in pairs or ()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise BadData(f"'{file}': expected the class names under 'names'") from None
    if pairs is None or not all(isinstance(name, str) for name in numbered.values()):
        raise BadData(f"'{file}': expected 'names' to be a list of class names, or a dict of class names by number")
    if not all(0 <= number <= MAX_CLASS for number in numbered):
        raise BadData(f"'{file}': expected class numbers from 0 to {MAX_CLASS} in 'names'")
    return {number: printable_name(name) for number, name in numbered.items()}
