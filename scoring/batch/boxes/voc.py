"""Read boxes from Pascal VOC XML files, one per image.

In these files, pixel coordinates start at 1 and the maxima belong to the box. The readers convert them to coordinates
that start at 0 and maxima that do not belong to the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes.box_labels import BoxLabels, Detection, ImageBoxes, Size, list_files
from sam_endpoint.scoring.batch.files import files_in

EXPECTED = "a name and a bndbox with xmin, ymin, xmax and ymax"
SIDES = ("xmin", "ymin", "xmax", "ymax")


def label_files(folder: Path, without: Path | None = None) -> list[Path]:
    """Return the XML files in a folder and its subfolders. Raises OSError."""
    return files_in(folder, (".xml",), without)


def read(folder: Path, files: Sequence[Path]) -> BoxLabels:
    """Read the boxes in Pascal VOC files.

    Args:
        folder: folder of the files.
        files: the XML files. Malformed files are reported when the boxes of their images are read.

    Returns:
        The categories, numbered from 0 in alphabetical order, and the boxes of each listed image.

    Raises:
        BadData: two files belong to the same image.
    """
    categories: set[str] = set()
    for file in files:
        with suppress(BadData, OSError):  # reported when the boxes of its image are read
            categories.update(_name(element) for element in _parse(file).iterfind("object"))
    numbers = {name: number for number, name in enumerate(sorted(categories - {""}))}
    listed = list_files(folder, files, partial(_boxes, numbers))
    return BoxLabels(folder, {number: name for name, number in numbers.items()}, listed)


def _boxes(numbers: dict[str, int], file: Path, size: Size) -> ImageBoxes:
    """Return the boxes in one file. They are in pixels, so `size` is not used. Raises BadData and OSError."""
    detections, skipped = [], []
    root = _parse(file)
    for position, element in enumerate(root.iterfind("object"), 1):
        origin = f"{file.name} object {position}"
        try:
            x1, y1, x2, y2 = (float(element.findtext(f"bndbox/{side}", "")) for side in SIDES)
            box = np.array([x1 - 1, y1 - 1, x2, y2])
            category = numbers[_name(element)]
            if not np.isfinite(box).all():
                raise ValueError
        except (ValueError, KeyError):
            skipped.append(f"{origin}: expected {EXPECTED}")
            continue
        detections.append(Detection(box, category, origin=origin))
    try:
        height, width = (int(float(root.findtext(f"size/{side}", "0"))) for side in ("height", "width"))
    except (ValueError, OverflowError):
        height = width = 0
    return ImageBoxes(detections, skipped, frozenset({(height, width)} if height > 0 and width > 0 else ()))


def _name(element: ElementTree.Element) -> str:
    return element.findtext("name", "").strip()


def _parse(file: Path) -> ElementTree.Element:
    """Return the root element of an XML file. The parser, Expat, limits the expansion of entities. Raises BadData."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise BadData(f"'{file.name}': expected objects with a name and a bndbox, got {error}") from None
    if root is None:
        raise BadData(f"'{file.name}': expected objects with a name and a bndbox, got none")
    return root
