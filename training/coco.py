"""True masks from a COCO instances file, whatever is wrong with it (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco
from tqdm import tqdm

from model import images
from model.errors import BadInput, kind
from model.images import ImageLimits
from model.prompts import FARTHEST
from scoring.batch.sources import BadTable
from training.ground_truth import SIZES, Picture, Problems, Thing

AREAS = (32**2, 96**2)  # pixels, from which COCO calls an object medium and large
KEYS = ("images", "annotations", "categories")
LIMITS = ImageLimits()


@dataclass(frozen=True)
class Truth:
    """One annotation as COCO's evaluation wants it: crowd regions too, which it neither asks for nor counts wrong."""

    image: object
    category: object
    rle: dict[str, Any]
    area: float
    crowd: bool


class Coco:
    """The images of a COCO instances file, or the first `count` of them, with their annotations' masks.

    file: json with `images`, `annotations`, `categories`; masks are polygons or run lengths, compressed or not.
    folder: where the images' `file_name` leads from (the file's own folder by default).
    truths: the annotations with masks of the pictures gone through so far.
    Raises BadTable for what is no such file. All else that is wrong is counted and named in `problems`.
    """

    sizes = "small: under 32 x 32 pixels of mask, medium: under 96 x 96, large: from there on"

    def __init__(self, file: Path, folder: Path | None = None, count: int = 0) -> None:
        given = _read(file)
        self.folder = folder or file.parent
        self.problems = Problems()
        self.truths: list[Truth] = []
        self.categories = {one["id"]: one.get("name") for one in given["categories"] if _named(one, "id")}
        self.images = self._images(given["images"])
        self.annotations = self._annotations(given["annotations"])
        self.settings: dict[str, Any] = {"data": file.name, "images": min(count or len(self.images), len(self.images))}

    def __iter__(self) -> Iterator[Picture]:
        entries = list(self.images.values())[: self.settings["images"]]
        for entry in tqdm(entries, unit="image", desc="judging", disable=None):
            annotations = self.annotations.get(entry["id"], [])
            pixels = self._pixels(entry, f"{entry['file_name']} ({len(annotations)} annotations)")
            if pixels is None:
                continue
            found = [self._thing(one, (pixels.shape[0], pixels.shape[1])) for one in annotations]
            yield Picture(entry["id"], str(entry["file_name"]), pixels, [thing for thing in found if thing])

    def _images(self, entries: list[Any]) -> dict[object, dict[str, Any]]:
        found: dict[object, dict[str, Any]] = {}
        for position, entry in enumerate(entries):
            if not _named(entry, "id") or not isinstance(entry.get("file_name"), str):
                self.problems.add("image entries without id and file_name, left out", f"images[{position}]")
            elif entry["id"] in found:
                self.problems.add("image ids used twice, the first counts", f"image {entry['id']}")
            else:
                found[entry["id"]] = entry
        return found

    def _annotations(self, entries: list[Any]) -> dict[object, list[dict[str, Any]]]:
        found: dict[object, list[dict[str, Any]]] = {}
        with_masks = set()
        for position, entry in enumerate(entries):
            if not _named(entry, "image_id"):
                self.problems.add("annotations without image_id, left out", f"annotations[{position}]")
                continue
            name = f"annotation {entry.setdefault('id', f'[{position}]')}"
            category = entry.get("category_id") if _named(entry, "category_id") else None
            if entry["image_id"] not in self.images:
                self.problems.add("annotations of images that the file lacks, left out", name)
                continue
            if category not in self.categories:
                self.problems.add("annotations of categories that the file lacks, judged", name)
            if entry.get("segmentation") and not entry.get("iscrowd"):
                with_masks.add(category)
            found.setdefault(entry["image_id"], []).append(entry)
        for category, name in self.categories.items():
            if category not in with_masks:
                self.problems.add("categories without masks", f"{name} (id {category})")
        return found

    def _pixels(self, entry: dict[str, Any], name: str) -> np.ndarray | None:
        try:
            pixels = images.decode((self.folder / entry["file_name"]).read_bytes(), LIMITS)
        except FileNotFoundError:
            self.problems.add("images missing, left out", name)
            return None
        except (OSError, ValueError) as error:
            reason = f"got {error.got}" if isinstance(error, BadInput) else str(error.args[-1])
            self.problems.add("images that cannot be read, left out", f"{name}: {reason}")
            return None
        height, width = pixels.shape[:2]
        said = (entry.get("height") or height, entry.get("width") or width)
        if said != (height, width):
            sizes = f"{width} x {height} instead of {said[1]} x {said[0]}"
            self.problems.add("images of another size than the file says, left out", f"{name}: {sizes}")
            return None
        return pixels

    def _thing(self, annotation: dict[str, Any], size: tuple[int, int]) -> Thing | None:
        """The annotation's mask in an image of `size` (height, width), None where there is none to judge."""
        name = f"annotation {annotation['id']}"
        crowd = bool(annotation.get("iscrowd"))
        if crowd:
            self.problems.add("crowd regions, left out", name)
        try:
            rle = run_lengths(annotation.get("segmentation"), size)
        except ValueError as error:
            self.problems.add("annotations whose mask cannot be read, left out", f"{name}: {error}")
            return None
        area = int(coco.area(rle)) if rle else 0
        if rle is None or not area:
            self.problems.add("empty annotations, or outside their image, left out", name)
            return None
        bbox = annotation.get("bbox")
        if bbox is not None and not _inside(bbox, size):
            self.problems.add("annotations with a box outside the image, judged by their masks", name)
        said = annotation.get("area")
        told = float(said) if isinstance(said, (int, float)) and not isinstance(said, bool) else float(area)
        category = annotation["category_id"] if _named(annotation, "category_id") else None
        self.truths.append(Truth(annotation["image_id"], category, rle, told, crowd))
        return None if crowd else Thing(name, SIZES[np.searchsorted(AREAS, area, side="right")], rle)


def run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    """COCO's compressed run lengths of a `segmentation` in an image of `size` (height, width): polygons
    `[[x1, y1, x2, y2, ...], ...]` or `{"size": [height, width], "counts": text or whole numbers}`; None if it is empty.

    What lies outside the image is cut off. Raises ValueError, since pycocotools takes a list of four numbers for a box
    and answers runs that do not fill the image with whatever the memory held before.
    """
    if not segmentation:
        return None
    height, width = size
    if isinstance(segmentation, list):
        if not all(_outline(polygon) for polygon in segmentation):
            raise ValueError("expected polygons of three points or more, x and y in turn")
        return coco.merge(coco.frPyObjects([list(map(float, polygon)) for polygon in segmentation], height, width))
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if not isinstance(counts, (str, list)):
        raise ValueError(f"expected polygons or an object with size and counts, got {kind(segmentation)}")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"expected run lengths of size [{height}, {width}], got {segmentation.get('size')}")
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"expected runs of {height * width} pixels together")
    return coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)


def _uncompressed(text: str) -> list[int]:
    """The runs in COCO's compressed text: numbers of 5 bits a character from the lowest on, 32 for "there is more";
    from the fourth on each is the difference to the last but one (rleFrString in pycocotools' maskApi.c)."""
    runs: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("expected compressed run lengths, got other text")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            runs.append(number + runs[-2] if len(runs) > 2 else number)
            number = shift = 0
    return runs


def _outline(polygon: Any) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(isinstance(number, (int, float)) and abs(number) <= FARTHEST for number in polygon)  # false for NaN


def _inside(bbox: Any, size: tuple[int, int]) -> bool:
    """Whether x, y, width, height lie in an image of `size` (height, width), or at most a pixel over its edge."""
    try:
        x, y, width, height = (float(number) for number in bbox)
    except (TypeError, ValueError):
        return False
    within = x >= -1 and y >= -1 and x + width <= size[1] + 1 and y + height <= size[0] + 1
    return within and math.isfinite(x + y + width + height)


def _named(entry: Any, key: str) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get(key), (int, str))


def parsed(file: Path, expected: str) -> Any:
    """What the JSON in a file says. Raises BadTable, which says what was expected of it."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise BadTable(f"'{file}' cannot be read: {error.strerror}; {expected}") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(f"'{file}' is not JSON: {error}; {expected}") from None


def _read(file: Path) -> dict[str, Any]:
    expected = f"expected a COCO instances file, an object with the lists {', '.join(KEYS)}"
    given = parsed(file, expected)
    if not isinstance(given, dict):
        raise BadTable(f"'{file}': {expected}; got {kind(given)}")
    missing = [key for key in KEYS if not isinstance(given.get(key), list)]
    if missing:
        got = f"one without {' and '.join(missing)}, whose keys are {', '.join(map(str, list(given)[:8])) or 'none'}"
        raise BadTable(f"'{file}': {expected}; got {got}")
    return given
