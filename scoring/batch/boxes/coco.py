"""Read boxes from a COCO instances file (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sam_endpoint.model.errors import BadData, kind
from sam_endpoint.scoring.batch.boxes.box_labels import BoxLabels, Detection, ImageBoxes, ListedImage, Size
from sam_endpoint.scoring.batch.boxes.matching import ImagePath, split
from sam_endpoint.scoring.batch.files import printable_name

EXPECTED_BOX = "bbox [x, y, width, height]"


def read(file: Path) -> BoxLabels:
    """Read the boxes in a COCO instances file.

    Args:
        file: the JSON file.

    Returns:
        The categories, and the boxes of each listed image. Malformed annotations are in `skipped`.

    Raises:
        BadData: the file is not a COCO instances file, or its images or categories are malformed.
    """
    try:
        content = json.loads(file.read_bytes())  # json.loads detects the encoding and removes a byte-order mark
    except (OSError, ValueError, RecursionError) as error:
        raise _no_coco(file, str(error)) from None
    if not isinstance(content, dict):
        raise _no_coco(file, f"it has {kind(content)} instead of an object")
    for name in ("categories", "annotations", "images"):
        if not isinstance(content.get(name), list):
            raise _no_coco(file, f"its '{name}' is {kind(content[name])}" if name in content else f"it has no '{name}'")
    names = _categories(file, content["categories"])
    images = _images(file, content["images"])
    name_of_id = {image_id: name for name, (ids, _) in images.items() for image_id in ids}
    by_name: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    skipped = []
    for position, annotation in enumerate(content["annotations"]):
        if not isinstance(annotation, dict):
            skipped.append(f"annotations[{position}]: expected an object, got {kind(annotation)}")
            continue
        annotation["origin"] = _origin(annotation, position)
        image_id = _id(annotation.get("image_id"))
        if image_id in name_of_id:
            by_name[name_of_id[image_id]].append(annotation)
        else:
            skipped.append(f"{annotation['origin']}: its image_id is not the id of an image in 'images'")
    listed = {
        name: ListedImage(
            name, ImagePath.of(file.parent, name), partial(_boxes, names, by_name[name], frozenset(sizes))
        )
        for name, (_, sizes) in images.items()
    }
    return BoxLabels(file, names, listed, True, skipped)


def _id(value: object) -> str | None:
    """Return an id as text. The file may have it as a number or text; for other values, return None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _categories(file: Path, categories: list[Any]) -> dict[int, str]:
    """Return the names of the categories by id. Raises BadData."""
    names: dict[int, str] = {}
    for position, category in enumerate(categories):
        place = f"categories[{position}]"
        if not isinstance(category, dict) or "name" not in category:
            raise _no_coco(file, f"{place} has no 'name'")
        if not isinstance(category["name"], (str, int, float)):
            raise _no_coco(file, f"the 'name' of {place} is {kind(category['name'])}, expected text")
        number = _whole_number(category.get("id"))
        if number is None:
            raise _no_coco(file, f"the 'id' of {place} is {kind(category.get('id'))}, expected a whole number")
        name = printable_name(str(category["name"]))
        if names.setdefault(number, name) != name:
            raise _no_coco(file, f"{place} has the id of another category")
    return names


def _images(file: Path, images: list[Any]) -> dict[str, tuple[set[str], set[Size]]]:
    """Return the ids and sizes of each image by its name. The file may list an image twice. Raises BadData."""
    by_parts: dict[tuple[str, ...], tuple[str, set[str], set[Size]]] = {}
    parts_of_id: dict[str, tuple[str, ...]] = {}
    for position, image in enumerate(images):
        image_id = _id(image.get("id")) if isinstance(image, dict) else None
        name = image.get("file_name") if isinstance(image, dict) else None
        if image_id is None or not isinstance(name, str) or not split(name):
            raise _no_coco(file, f"images[{position}] lacks an 'id' or a 'file_name'")
        parts = split(name)
        _, ids, sizes = by_parts.setdefault(parts, (name, set(), set()))
        ids.add(image_id)
        height, width = _whole_number(image.get("height")), _whole_number(image.get("width"))
        if height and width and min(height, width) > 0:
            sizes.add((height, width))
        if parts_of_id.setdefault(image_id, parts) != parts:
            first = by_parts[parts_of_id[image_id]][0]
            raise _no_coco(file, f"'{printable_name(first)}' and '{printable_name(name)}' have the same id in 'images'")
    return {name: (ids, sizes) for name, ids, sizes in by_parts.values()}


def _boxes(names: dict[int, str], annotations: list[dict[str, Any]], sizes: frozenset[Size], size: Size) -> ImageBoxes:
    """Return the boxes of one image. The file has them in pixels, so `size` is not used."""
    detections, skipped = [], []
    for annotation in annotations:
        box, category = _box(annotation.get("bbox")), _whole_number(annotation.get("category_id"))
        origin = annotation["origin"]
        if box is None:
            skipped.append(f"{origin}: expected {EXPECTED_BOX}, got {kind(annotation.get('bbox'))}")
        elif category not in names:
            skipped.append(f"{origin}: its category_id is not the id of a category in 'categories'")
        else:
            detections.append(Detection(box, category, origin=origin))
    return ImageBoxes(detections, skipped, sizes)


def _box(bbox: object) -> np.ndarray | None:
    """Return `(4,)` x1, y1, x2, y2 in pixels, or None if the value is not a box."""
    try:
        x, y, width, height = (float(number) for number in (bbox if isinstance(bbox, list) else ()))
    except (TypeError, ValueError, OverflowError):
        return None
    box = np.array([x, y, x + width, y + height])
    return box if np.isfinite(box).all() else None


def _whole_number(value: object) -> int | None:
    """Convert a whole number, or text with a whole number, to an int. Return None for other values."""
    text = _id(value)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _origin(annotation: dict[str, Any], position: int) -> str:
    number = _id(annotation.get("id"))
    return f"annotations[{position}]" if number is None else f"annotation {printable_name(number[:40])}"


def _no_coco(file: Path, problem: str) -> BadData:
    return BadData(f"'{file}' is not a COCO instances file with images, annotations and categories: {problem}")
