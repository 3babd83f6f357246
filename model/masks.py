"""Encode masks as PNG, COCO run lengths or polygons, and decode them."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypedDict

import msgspec
import numpy as np
from PIL import Image
from pycocotools import mask as coco

from . import png, threads
from .boxes import extent
from .outlines import to_polygons as to_polygons

ENCODINGS = ("png", "rle", "polygon")


class RunLengths(TypedDict):
    """COCO compressed run lengths, as pycocotools reads and writes them.

    Attributes:
        size: [height, width] of the mask in pixels.
        counts: the compressed run lengths.
    """

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class CroppedMask:
    """A mask that is stored only inside a box. Outside the box, the mask is empty.

    Attributes:
        inside: (rows, columns) bool, the mask inside the box.
        top: first row of the box in the image.
        left: first column of the box in the image.
        size: (height, width) of the image in pixels.

    Example:
        >>> CroppedMask(np.ones((1, 2), bool), top=1, left=0, size=(2, 3)).whole().astype(int).tolist()
        [[0, 0, 0], [1, 1, 0]]
    """

    inside: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    def whole(self) -> np.ndarray:
        """Return the (h, w) bool mask of the whole image."""
        mask = np.zeros(self.size, bool)
        rows, columns = self.inside.shape
        mask[self.top : self.top + rows, self.left : self.left + columns] = self.inside
        return mask

    def within(self, top: int, left: int, size: tuple[int, int]) -> CroppedMask:
        """Place the mask in a larger image.

        Args:
            top: row of the larger image that is row 0 of this mask's image.
            left: column of the larger image that is column 0 of this mask's image.
            size: (height, width) of the larger image in pixels.
        """
        if (top, left, size) == (0, 0, self.size):
            return self
        return CroppedMask(self.inside, self.top + top, self.left + left, size)

    def box(self) -> np.ndarray:
        """Return the (4,) int64 box x1, y1, x2, y2 of the mask in the image, as `boxes.extent` does."""
        box: np.ndarray = extent(self.inside) + np.array([self.left, self.top] * 2)
        return box


class EncodedMask(CroppedMask):
    """A mask that is known by its run lengths. Its pixels are computed when they are read for the first time.

    Args:
        rle: the mask as COCO compressed run lengths.
    """

    rle: RunLengths

    def __init__(self, rle: RunLengths) -> None:
        left, top, _, _ = (int(number) for number in coco.toBbox(rle))
        height, width = rle["size"]
        vars(self).update(rle=rle, size=(height, width), left=left, top=top)  # the attributes are frozen

    @cached_property
    def inside(self) -> np.ndarray:
        """The mask inside its bounding box, (rows, columns) bool."""
        _, _, columns, rows = (int(number) for number in coco.toBbox(self.rle))
        return from_rle(self.rle)[self.top : self.top + rows, self.left : self.left + columns]

    def box(self) -> np.ndarray:
        """Return the box, as `CroppedMask.box` does, without the pixels."""
        _, _, columns, rows = (int(number) for number in coco.toBbox(self.rle))
        return np.array([self.left, self.top, self.left + max(1, columns) - 1, self.top + max(1, rows) - 1])


def _cropped(mask: np.ndarray | CroppedMask) -> CroppedMask:
    return mask if isinstance(mask, CroppedMask) else CroppedMask(mask, 0, 0, (mask.shape[0], mask.shape[1]))


def to_rle(mask: np.ndarray | CroppedMask) -> RunLengths:
    """Encode a mask as COCO compressed run lengths.

    COCO's runs go down the columns. A run begins where a pixel differs from the pixel above it. Memory holds the pixels
    row by row, so this function finds the beginnings of runs in that order. It then sorts them by column. The sort is
    cheap, because there are far fewer runs than pixels.

    Args:
        mask: (h, w) bool, or a cropped mask.

    Example:
        >>> rle = to_rle(np.eye(2, dtype=bool))
        >>> rle
        {'size': [2, 2], 'counts': b'0120'}
        >>> from_rle(rle).tolist()
        [[True, False], [False, True]]
    """
    cropped = _cropped(mask)
    if isinstance(cropped, EncodedMask):
        return cropped.rle
    height = cropped.size[0]
    rows, columns = cropped.inside.shape
    # A run can continue from the last pixel of a column to the first pixel of the next column. If the box is as high as
    # the image, the first pixel of a column is therefore compared with the last pixel of the column to its left. If the
    # box is less high, the pixels above and below each column of the box are empty.
    full = rows == height
    edges = np.zeros((rows + (not full), columns), bool)
    inside = cropped.inside
    if rows and columns:
        np.not_equal(inside[1:], inside[:-1], out=edges[1:rows])
        if full:
            edges[0, 0] = inside[0, 0]
            np.not_equal(inside[0, 1:], inside[-1, :-1], out=edges[0, 1:])
        else:
            edges[0], edges[rows] = inside[0], inside[-1]
    y, x = np.divmod(np.flatnonzero(edges), max(1, columns))
    order = np.argsort(x.astype(np.min_scalar_type(columns)), kind="stable")
    places = ((x + cropped.left) * height + y + cropped.top)[order]
    # If the box is as high as the image and its last pixel is set, the run of this pixel ends where the next column of
    # the image begins. That column is outside the box, so it is empty.
    if full and columns and inside[-1, -1]:
        places = np.append(places, (cropped.left + columns) * height)
    return compress(places, cropped.size)


def compress(changes: np.ndarray, size: tuple[int, int]) -> RunLengths:
    """Encode a mask that is given by its changes as COCO compressed run lengths.

    Args:
        changes: (n,) ascending numbers of the pixels whose value differs from that of the previous pixel. Pixels are
            numbered down the columns. The pixel before the first counts as empty.
        size: (height, width) of the mask in pixels.

    Example:
        >>> compress(np.array([1, 3]), (2, 2)) == to_rle(np.array([[0, 1], [1, 0]], bool))
        True
    """
    height, width = size
    counts = np.diff(changes, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RunLengths = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def from_rle(rle: RunLengths) -> np.ndarray:
    """Decode COCO compressed run lengths to a (h, w) bool mask."""
    mask: np.ndarray = coco.decode(rle).view(bool)
    return mask


def to_png(mask: np.ndarray | CroppedMask) -> str:
    """Encode a mask as base64 text of an 8-bit greyscale PNG with the values 0 and 255.

    Args:
        mask: (h, w) bool, or a cropped mask.
    """
    cropped = _cropped(mask)
    return base64.b64encode(png.encode(cropped.inside, cropped.top, cropped.left, cropped.size)).decode("ascii")


def encode(mask: np.ndarray | CroppedMask, encoding: str) -> dict[str, Any]:
    """Encode a mask for a response.

    Args:
        mask: (h, w) bool, or a cropped mask.
        encoding: one of ENCODINGS.

    Returns:
        `encoded_binary_mask`, `size` [h, w], `bbox` [x, y, w, h] and `area`, all in pixels. The box and the area are
        computed by pycocotools.

    Example:
        >>> encode(np.eye(2, dtype=bool), "rle")
        {'encoded_binary_mask': '0120', 'size': [2, 2], 'bbox': [0.0, 0.0, 2.0, 2.0], 'area': 2}
    """
    return _response_fields(to_rle(mask), mask, encoding)


def encode_all(masks: Sequence[np.ndarray | CroppedMask], encoding: str) -> list[dict[str, Any]]:
    """Apply `encode` to each mask. PNGs are encoded in parallel threads, because deflate releases the GIL."""
    if encoding != "png":
        return [encode(mask, encoding) for mask in masks]
    return threads.map_parallel(partial(encode, encoding=encoding), masks)


def encode_rle(rle: RunLengths, encoding: str) -> dict[str, Any]:
    """Encode compressed run lengths for a response. The result has the fields that `encode` returns."""
    return _response_fields(rle, None if encoding == "rle" else from_rle(rle), encoding)


def _response_fields(rle: RunLengths, mask: np.ndarray | CroppedMask | None, encoding: str) -> dict[str, Any]:
    if mask is None:
        text = rle["counts"].decode("ascii")
    elif encoding == "polygon":
        polygons = to_polygons(mask.whole() if isinstance(mask, CroppedMask) else mask)
        text = msgspec.json.encode(polygons).decode()
    else:
        text = rle["counts"].decode("ascii") if encoding == "rle" else to_png(mask)
    return {
        "encoded_binary_mask": text,
        "size": [int(side) for side in rle["size"]],
        "bbox": [float(number) for number in coco.toBbox(rle)],
        "area": int(coco.area(rle)),
    }


def decode(text: str, encoding: str, size: tuple[int, int]) -> np.ndarray:
    """Decode `encoded_binary_mask` of a response.

    Args:
        text: the encoded mask.
        encoding: the encoding of `text`, one of ENCODINGS.
        size: (height, width) of the mask, `size` in the response.

    Returns:
        The (h, w) bool mask.

    Example:
        >>> decode("0120", "rle", (2, 2)).tolist()
        [[True, False], [False, True]]
    """
    height, width = size
    if encoding == "png":
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) > 0
    if encoding == "rle":
        return from_rle({"size": [height, width], "counts": text.encode("ascii")})
    polygons = json.loads(text)
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    return from_rle(coco.merge(coco.frPyObjects(polygons, height, width)))


def logits_to_text(logits: np.ndarray) -> str:
    """Encode (h, w) low-resolution logits as base64 text of a float16 `.npy` file."""
    largest = np.finfo(np.float16).max
    buffer = io.BytesIO()
    np.save(buffer, np.clip(logits, -largest, largest).astype(np.float16), allow_pickle=False)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")


def logits_nbytes(size: tuple[int, int]) -> int:
    """Return the approximate length of the text that `logits_to_text` returns for logits of `size` (h, w)."""
    return math.ceil(size[0] * size[1] * 2 * 4 / 3)
