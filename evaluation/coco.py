"""Read a COCO instances file as ground truth (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sam_endpoint.evaluation.ground_truth import SIZES, AnnotatedImage, Problems, TrueObject
from sam_endpoint.model.coco_masks import run_lengths
from sam_endpoint.model.errors import BadData, BadInput, kind
from sam_endpoint.model.images import ImageLimits, decoding
from sam_endpoint.model.masks import RunLengths
from sam_endpoint.scoring.batch.progress import tracked

SIZE_LIMITS = (32**2, 96**2)  # pixels: the smallest medium object and the smallest large object, as in COCO
KEYS = ("images", "annotations", "categories")
LIMITS = ImageLimits()
# An entry of `images` with this value has masks of the image as it is stored, without its EXIF orientation.
ORIENTATION, STORED = "orientation", "stored"


@dataclass(frozen=True)
class CocoAnnotation:
    """An annotation with a mask, for COCO's average precision.

    Attributes:
        image_id: The id of the image in the file.
        category_id: The id of the category in the file, or None.
        rle: The mask as COCO's compressed run lengths.
        area: The area in pixels that the file states. If it states none, the area of the mask.
        crowd: Whether the mask covers a group of objects. Such regions are not prompted, and predictions in them do not
            count as false positives.
    """

    image_id: object
    category_id: object
    rle: RunLengths
    area: float
    crowd: bool


class CocoDataset:
    """The images of a COCO instances file with the masks of their annotations.

    A malformed image or annotation is counted in `problems` and does not stop the evaluation.

    Args:
        file: A JSON file with `images`, `annotations` and `categories`. Masks are polygons or run lengths.
        folder: The folder that each `file_name` is relative to; None for the folder of the file.
        count: The number of images to read; 0 for all.
        activity: The label of the progress bar.

    Attributes:
        annotations: The annotations with masks, of the images that have been read so far.

    Raises:
        BadData: The file is not a COCO instances file.
    """

    sizes = "small: less than 32 x 32 pixels of mask, medium: less than 96 x 96, large: all others"

    def __init__(self, file: Path, folder: Path | None = None, count: int = 0, activity: str = "evaluating") -> None:
        content = _read_instances(file)
        self.folder = folder or file.parent
        self.activity = activity
        self.problems = Problems()
        self.annotations: list[CocoAnnotation] = []
        self.categories = {entry["id"]: entry.get("name") for entry in content["categories"] if _has_id(entry, "id")}
        self.images = self._index_images(content["images"])
        self._entries = self._group_annotations(content["annotations"])
        self.count = min(count or len(self.images), len(self.images))
        self.settings: dict[str, Any] = {"data": file.name, "images": self.count}

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Read the images one by one, and show the progress."""
        images = list(self.images.values())[: self.count]
        for image in tracked(images, self.activity, "image"):
            entries = self._entries.get(image["id"], [])
            pixels = self._read_pixels(image, f"{image['file_name']} ({len(entries)} annotations)")
            if pixels is None:
                continue
            objects = [self._read_object(entry, (pixels.shape[0], pixels.shape[1])) for entry in entries]
            yield AnnotatedImage(image["id"], str(image["file_name"]), pixels, list(filter(None, objects)))

    def _index_images(self, entries: list[Any]) -> dict[object, dict[str, Any]]:
        """Return the valid entries of `images` by id."""
        images: dict[object, dict[str, Any]] = {}
        for position, entry in enumerate(entries):
            if not _has_id(entry, "id") or not isinstance(entry.get("file_name"), str):
                self.problems.add("image entries that lack id or file_name, left out", f"images[{position}]")
            elif entry["id"] in images:
                self.problems.add("image ids used twice, only the first image used", f"image {entry['id']}")
            else:
                images[entry["id"]] = entry
        return images

    def _group_annotations(self, entries: list[Any]) -> dict[object, list[dict[str, Any]]]:
        """Return the valid entries of `annotations` by the id of their image."""
        by_image: dict[object, list[dict[str, Any]]] = {}
        categories_with_masks = set()
        for position, entry in enumerate(entries):
            if not _has_id(entry, "image_id"):
                self.problems.add("annotations without image_id, left out", f"annotations[{position}]")
                continue
            name = f"annotation {entry.setdefault('id', f'[{position}]')}"
            category_id = entry.get("category_id") if _has_id(entry, "category_id") else None
            if entry["image_id"] not in self.images:
                self.problems.add("annotations of images that the file lacks, left out", name)
                continue
            if category_id not in self.categories:
                self.problems.add("annotations of categories that the file lacks, used", name)
            if entry.get("segmentation") and not entry.get("iscrowd"):
                categories_with_masks.add(category_id)
            by_image.setdefault(entry["image_id"], []).append(entry)
        for category_id, name in self.categories.items():
            if category_id not in categories_with_masks:
                self.problems.add("categories without masks", f"{name} (id {category_id})")
        return by_image

    def _read_pixels(self, image: dict[str, Any], name: str) -> np.ndarray | None:
        """Read an entry of `images` as `(H, W, 3)` uint8 pixels. Return None if the image cannot be used."""
        try:
            data = (self.folder / image["file_name"]).read_bytes()
            upright = image.get(ORIENTATION) != STORED  # labelling tools show images upright
            pixels = decoding.decode(data, LIMITS, upright)
            if not _has_stated_size(pixels, image) and decoding.is_turned(data):
                pixels = decoding.decode(data, LIMITS, not upright)
        except FileNotFoundError:
            self.problems.add("images missing, left out", name)
            return None
        except (OSError, ValueError) as error:
            reason = f"got {error.got}" if isinstance(error, BadInput) else str(error.args[-1])
            self.problems.add("images that cannot be read, left out", f"{name}: {reason}")
            return None
        if not _has_stated_size(pixels, image):
            height, width = pixels.shape[:2]
            sizes = f"{width} x {height} instead of {image.get('width') or width} x {image.get('height') or height}"
            self.problems.add("images of another size than the file says, left out", f"{name}: {sizes}")
            return None
        return pixels

    def _read_object(self, entry: dict[str, Any], size: tuple[int, int]) -> TrueObject | None:
        """Read an entry of `annotations`, in an image of `size` (height, width).

        Returns:
            The object; None for a crowd region and for an entry without a usable mask.
        """
        name = f"annotation {entry['id']}"
        crowd = bool(entry.get("iscrowd"))
        if crowd:
            self.problems.add("crowd regions, left out", name)
        try:
            rle = run_lengths(entry.get("segmentation"), size)
        except ValueError as error:
            self.problems.add("annotations whose mask cannot be read, left out", f"{name}: {error}")
            return None
        mask_area = int(coco.area(rle)) if rle else 0
        if rle is None or not mask_area:
            self.problems.add("annotations without pixels in the image, left out", name)
            return None
        bbox = entry.get("bbox")
        if bbox is not None and not _is_inside(bbox, size):
            self.problems.add("annotations with a box outside the image, used without the box", name)
        area = entry.get("area")
        area = float(area) if isinstance(area, (int, float)) and not isinstance(area, bool) else float(mask_area)
        category_id = entry["category_id"] if _has_id(entry, "category_id") else None
        self.annotations.append(CocoAnnotation(entry["image_id"], category_id, rle, area, crowd))
        return None if crowd else TrueObject(name, SIZES[np.searchsorted(SIZE_LIMITS, mask_area, side="right")], rle)


def read_json(file: Path, expected: str) -> Any:
    """Read a JSON file.

    Args:
        file: The file.
        expected: The description of a valid file, for the error message.

    Raises:
        BadData: The file cannot be read or is not JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise BadData(f"'{file}' cannot be read: {error.strerror}; {expected}") from None
    except (ValueError, RecursionError) as error:
        raise BadData(f"'{file}' is not JSON: {error}; {expected}") from None


def _read_instances(file: Path) -> dict[str, Any]:
    """Read a COCO instances file, and check that it has the lists KEYS. Raises BadData."""
    expected = f"expected a COCO instances file, an object with the lists {', '.join(KEYS)}"
    content = read_json(file, expected)
    if not isinstance(content, dict):
        raise BadData(f"'{file}': {expected}; got {kind(content)}")
    missing = [key for key in KEYS if not isinstance(content.get(key), list)]
    if missing:
        keys = ", ".join(map(str, list(content)[:8])) or "none"
        raise BadData(f"'{file}': {expected}; got an object without {' and '.join(missing)}; its keys are {keys}")
    return content


def _has_id(entry: Any, key: str) -> bool:
    """Return whether an entry is an object with a number or text under `key`."""
    return isinstance(entry, dict) and isinstance(entry.get(key), (int, str))


def _has_stated_size(pixels: np.ndarray, image: dict[str, Any]) -> bool:
    """Return whether pixels have the height and width that an entry of `images` states, if it states them."""
    height, width = pixels.shape[:2]
    return (image.get("height") or height, image.get("width") or width) == (height, width)


def _is_inside(bbox: Any, size: tuple[int, int]) -> bool:
    """Return whether x, y, width, height is in an image of `size` (height, width), with a tolerance of a pixel."""
    try:
        x, y, width, height = (float(number) for number in bbox)
    except (TypeError, ValueError):
        return False
    within = x >= -1 and y >= -1 and x + width <= size[1] + 1 and y + height <= size[0] + 1
    return within and math.isfinite(x + y + width + height)
