"""Photographs with masks, read from COCO instances files, as training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.evaluation.coco import read_json
from sam_endpoint.model.coco_masks import run_lengths
from sam_endpoint.model.errors import BadData
from sam_endpoint.model.masks import RunLengths
from sam_endpoint.training.augment import Region

Rng = np.random.Generator
Bytes = NDArray[np.uint8]

FILE = "instances.json"
MAX_MASKS = 31  # of a photograph each time that it is shown: one bit of an int32 for each mask
CONTAINED = 0.9  # the share of a part that lies in its whole, at least
LARGER = 1.3  # the area of a whole as a multiple of its part's area, at least


class Photograph(NamedTuple):
    """A photograph and its masks.

    Attributes:
        file: The picture.
        size: Height and width in pixels.
        masks: The masks as COCO's compressed run lengths. They can overlap. Pixels without a mask can show anything.
        boxes: (masks, 4), x1, y1, x2, y2 in pixels.
    """

    file: Path
    size: tuple[int, int]
    masks: list[RunLengths]
    boxes: NDArray[np.float64]

    def pixels(self) -> Bytes:
        """Decode the picture, (height, width, 3)."""
        with Image.open(self.file) as image:
            return np.asarray(image.convert("RGB"))

    def visible(self, region: Region) -> NDArray[np.int64]:
        """Return the indices of the masks whose boxes reach into a region."""
        rows, columns = region
        x1, y1, x2, y2 = self.boxes.T
        inside = (x1 < columns.stop) & (x2 > columns.start) & (y1 < rows.stop) & (y2 > rows.start)
        return np.flatnonzero(inside)

    def labels(self, indices: Sequence[int] | NDArray[np.int64], region: Region) -> NDArray[np.int32]:
        """Return a region of up to MAX_MASKS masks as one array. Bit i of a pixel is its value in `indices[i]`."""
        bits = np.zeros((region[0].stop - region[0].start, region[1].stop - region[1].start), np.int32)
        for position, index in enumerate(indices):
            bits |= coco.decode(self.masks[index])[region].astype(np.int32) << position
        return bits


def read_photographs(folders: Sequence[Path]) -> list[Photograph]:
    """Read the photographs of folders that each have a COCO instances file `instances.json`.

    Args:
        folders: The folders. A `file_name` is relative to its folder.

    Raises:
        BadData: A file is not a COCO instances file, or has no photograph with a mask.
    """
    photographs: list[Photograph] = []
    for folder in folders:
        content = read_json(folder / FILE, "expected a COCO instances file")
        try:
            found = _read_folder(folder, content)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__} {error}"
            raise BadData(f"'{folder / FILE}': expected COCO's images and annotations; got {reason}") from None
        if not found:
            raise BadData(f"'{folder / FILE}': expected at least one image with a mask, got none")
        photographs += found
    return photographs


def _read_folder(folder: Path, content: Any) -> list[Photograph]:
    masks: dict[object, list[RunLengths]] = {}
    sizes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
    for entry in content["annotations"]:
        rle = None if entry.get("iscrowd") else run_lengths(entry["segmentation"], sizes[entry["image_id"]])
        if rle is not None and coco.area(rle):
            masks.setdefault(entry["image_id"], []).append(rle)
    photographs = []
    for image in content["images"]:
        if own := masks.get(image["id"]):
            corners = coco.toBbox(own)  # x, y, width, height
            corners[:, 2:] += corners[:, :2]
            photographs.append(Photograph(folder / image["file_name"], sizes[image["id"]], own, corners))
    return photographs


def choose_bits(rng: Rng, labels: NDArray[np.int32], count: int, min_area: float) -> NDArray[np.bool_] | None:
    """Choose masks of a photograph. No mask is chosen twice before all are chosen once.

    Large masks are chosen a little earlier than small masks, because most photographs have many more small masks. A
    part is followed by its whole in a third of the cases, so that a click learns both.

    Args:
        rng: The random generator.
        labels: (height, width), as `Photograph.labels` returns them, cropped.
        count: The number of masks.
        min_area: The smallest area of a mask in pixels.

    Returns:
        (count, height, width), or None if no mask is large enough.
    """
    bits = np.arange(int(labels.max()).bit_length(), dtype=np.int32)
    masks: NDArray[np.bool_] = (labels & (1 << bits)[:, None, None]) > 0
    areas = masks.sum((1, 2))
    masks = masks[(areas >= min_area) & (areas < 0.95 * labels.size)]
    if not len(masks):
        return None
    areas = masks.sum((1, 2))
    # Efraimidis and Spirakis (2006): a weighted order without replacement.
    order = np.argsort(np.log(rng.random(len(masks))) / areas**0.3)[::-1].tolist()
    chosen: list[int] = []
    while len(chosen) < count:
        for index in order:
            chosen.append(index)
            shared = (masks & masks[index]).sum((1, 2))
            wholes = np.flatnonzero((shared > CONTAINED * areas[index]) & (areas > LARGER * areas[index]))
            if len(wholes) and rng.random() < 1 / 3:
                chosen.append(int(rng.choice(wholes)))
            if len(chosen) >= count:
                break
    result: NDArray[np.bool_] = masks[rng.permutation(chosen[:count])]
    return result
