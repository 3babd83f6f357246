"""Encode masks as PNG, RLE or polygons, and decode them."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypedDict

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from . import threads
from .errors import BadRequest

ENCODINGS = ("png", "rle", "polygon")
MAX_EDGES = 2_000_000  # of the contours of one mask, seconds of work
BLANK = 2**18  # length of the block of zeros that is deflated once and reused


class RunLengths(TypedDict):
    """COCO compressed run lengths as in pycocotools: the mask's [height, width], and the runs."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True)
class CroppedMask:
    """A mask that is stored only inside a box; outside the box it is empty.

    Attributes:
        inside: (rows, columns) bool, the mask inside the box.
        top: row of the image at which the box begins.
        left: column of the image at which the box begins.
        size: (height, width) of the image.
    """

    inside: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    def whole(self) -> np.ndarray:
        """Return the mask of the whole image, (h, w) bool."""
        mask = np.zeros(self.size, bool)
        rows, columns = self.inside.shape
        mask[self.top : self.top + rows, self.left : self.left + columns] = self.inside
        return mask

    def within(self, top: int, left: int, size: tuple[int, int]) -> CroppedMask:
        """Return this mask in a larger image of `size` (h, w), where its own image begins at `top`, `left`."""
        return CroppedMask(self.inside, self.top + top, self.left + left, size)


def _cropped(mask: np.ndarray | CroppedMask) -> CroppedMask:
    return mask if isinstance(mask, CroppedMask) else CroppedMask(mask, 0, 0, (mask.shape[0], mask.shape[1]))


def to_rle(mask: np.ndarray | CroppedMask) -> RunLengths:
    """Encode a (h, w) bool mask as COCO compressed run lengths.

    Runs go down the columns. A run begins where a pixel differs from the pixel above it. The beginnings are collected
    in memory order, row by row, and then sorted by column with a stable sort; there are far fewer runs than pixels.
    """
    cropped = _cropped(mask)
    height, width = cropped.size
    rows, columns = cropped.inside.shape
    # If the box is as high as the image, the pixel before the first row is the last pixel of the previous column;
    # otherwise it is empty.
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
    if full and columns and inside[-1, -1]:  # the column after the box is empty
        places = np.append(places, (cropped.left + columns) * height)
    counts = np.diff(places, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RunLengths = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return rle


def from_rle(rle: RunLengths) -> np.ndarray:
    """Decode COCO compressed run lengths to a (h, w) bool mask."""
    mask: np.ndarray = coco.decode(rle).view(bool)
    return mask


def to_png(mask: np.ndarray | CroppedMask) -> str:
    """Encode a (h, w) bool mask as base64 text of an 8-bit greyscale PNG with the values 0 and 255.

    This encoder (PNG specification, sections 9 and 11) uses no row filters, which two values do not need, and deflate's
    run-length strategy. It skips rows above and below the mask, so a small mask of a large image is encoded several
    times as fast.
    """
    cropped = _cropped(mask)
    height, width = cropped.size
    rows, columns = cropped.inside.shape
    lines = np.zeros((rows, 1 + width), np.uint8)  # the first byte of a line is its filter type, 0
    np.multiply(cropped.inside, np.uint8(255), out=lines[:, 1 + cropped.left : 1 + cropped.left + columns])
    data = _deflated(cropped.top * (1 + width), lines, (height - cropped.top - rows) * (1 + width))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    png = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + png).decode("ascii")


def _deflated(above: int, lines: np.ndarray, below: int) -> bytes:
    """Return a zlib stream (RFC 1950) of `above` zeros, the bytes of `lines`, and `below` zeros.

    A block of BLANK zeros is deflated once and reused: blocks without back references that end at a byte boundary can
    be placed anywhere (RFC 1951). The checksum of zeros has a closed form.
    """
    deflate = _run_lengths()
    data = _blank() * (above // BLANK) + deflate.compress(bytes(above % BLANK))
    data += deflate.compress(lines.data) + deflate.compress(bytes(below % BLANK))
    if below < BLANK:
        data += deflate.flush()
    else:
        data += deflate.flush(zlib.Z_FULL_FLUSH) + _blank() * (below // BLANK) + b"\x03\x00"  # an empty last block
    checksum = zlib.adler32(lines.data, above % 65521 << 16 | 1)
    low, high = checksum & 0xFFFF, checksum >> 16
    high = (high + below * low) % 65521
    return b"\x78\x01" + data + struct.pack(">HH", high, low)


@cache
def _blank() -> bytes:
    """Return the deflated block of BLANK zeros."""
    deflate = _run_lengths()
    return deflate.compress(bytes(BLANK)) + deflate.flush(zlib.Z_FULL_FLUSH)


def _run_lengths() -> zlib._Compress:
    """Return a compressor with deflate's run-length strategy that writes no zlib header or checksum."""
    return zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outer contours of a (h, w) bool mask as COCO polygons `[[x1, y1, x2, y2, ...], ...]`, one per piece.

    The contours run along pixel edges (a single pixel at x, y is the square from x,y to x+1,y+1), so filling them
    restores the mask except for its holes. Pieces that touch only at a corner are separate polygons. Pieces are sorted
    by their topmost, then leftmost pixel.

    Raises:
        BadRequest: the contours are too long, as those of noise are.
    """
    padded = np.pad(mask.view(np.uint8), 1)
    # Edges are directed so that the mask is on their right: top edges point right, bottom edges point left, and so on.
    step_down = np.diff(padded.astype(np.int8), axis=0)[:, 1:-1]  # (h + 1, w): between rows y - 1 and y
    step_right = np.diff(padded.astype(np.int8), axis=1)[1:-1]  # (h, w + 1): between columns x - 1 and x
    stride = mask.shape[1] + 1
    starts, ends = [], []
    for edges, (y_from, x_from), (y_to, x_to) in (
        (step_down == 1, (0, 0), (0, 1)),
        (step_down == -1, (0, 1), (0, 0)),
        (step_right == -1, (0, 0), (1, 0)),
        (step_right == 1, (1, 0), (0, 0)),
    ):
        ys, xs = np.nonzero(edges)
        starts.append((ys + y_from) * stride + xs + x_from)
        ends.append((ys + y_to) * stride + xs + x_to)
    if (count := sum(map(len, starts))) > MAX_EDGES:
        raise BadRequest(
            f"expected masks whose outlines have at most {MAX_EDGES:,} edges of pixels, got {count:,}: use run lengths"
        )
    return _outer_loops(np.concatenate(starts), np.concatenate(ends), stride)


def _outer_loops(starts: np.ndarray, ends: np.ndarray, stride: int) -> list[list[float]]:
    """Join directed unit edges between grid vertices (numbered y * stride + x) into closed loops.

    Where two pieces touch at a corner, two edges leave the same vertex; a right turn stays on the same piece. Loops in
    the opposite direction enclose holes and are omitted.
    """
    leaving: dict[int, list[int]] = {}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        leaving.setdefault(start, []).append(end)
    right_turn = {1: stride, stride: -1, -1: -stride, -stride: 1}
    polygons = []
    for first in sorted(leaving):
        while leaving[first]:
            vertex, step = leaving[first].pop(), 0
            step = vertex - first
            corners, position, doubled_area = [first], first, 0
            while True:
                doubled_area += (position % stride) * (vertex // stride) - (vertex % stride) * (position // stride)
                position = vertex
                if position == first:
                    break
                targets = leaving[position]
                turn = position + right_turn[step]
                vertex = turn if turn in targets else targets[0]
                targets.remove(vertex)
                if vertex - position != step:
                    corners.append(position)
                    step = vertex - position
            if doubled_area > 0:
                polygons.append([float(n) for corner in corners for n in (corner % stride, corner // stride)])
    return polygons


def encode(mask: np.ndarray | CroppedMask, encoding: str) -> dict[str, Any]:
    """Encode a (h, w) bool mask for a response.

    Args:
        mask: (h, w) bool mask.
        encoding: one of ENCODINGS.

    Returns:
        `encoded_binary_mask`, `size` [h, w], `bbox` [x, y, w, h] and `area` in pixels, the last two as in pycocotools.
    """
    return _response_fields(to_rle(mask), mask, encoding)


def encode_all(masks: Sequence[np.ndarray | CroppedMask], encoding: str) -> list[dict[str, Any]]:
    """Apply `encode` to each mask; PNGs are encoded in parallel threads because deflate releases the GIL."""
    if encoding != "png":
        return [encode(mask, encoding) for mask in masks]
    return threads.each(partial(encode, encoding=encoding), masks)


def encode_rle(rle: RunLengths, encoding: str) -> dict[str, Any]:
    """Encode compressed run lengths for a response, like `encode`; decode them only if the encoding needs it."""
    return _response_fields(rle, None if encoding == "rle" else from_rle(rle), encoding)


def _response_fields(rle: RunLengths, mask: np.ndarray | CroppedMask | None, encoding: str) -> dict[str, Any]:
    if mask is None:
        text = rle["counts"].decode("ascii")
    elif encoding == "polygon":
        text = json.dumps(to_polygons(mask.whole() if isinstance(mask, CroppedMask) else mask))
    else:
        text = rle["counts"].decode("ascii") if encoding == "rle" else to_png(mask)
    return {
        "encoded_binary_mask": text,
        "size": [int(side) for side in rle["size"]],
        "bbox": [float(number) for number in coco.toBbox(rle)],
        "area": int(coco.area(rle)),
    }


def decode(text: str, encoding: str, size: tuple[int, int]) -> np.ndarray:
    """Decode `encoded_binary_mask` to a (h, w) bool mask; `size` is the (height, width) of the response."""
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
    """Encode (h, w) low-resolution logits as base64 text of a float16 .npy file."""
    largest = np.finfo(np.float16).max
    buffer = io.BytesIO()
    np.save(buffer, np.clip(logits, -largest, largest).astype(np.float16), allow_pickle=False)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")


def logits_nbytes(size: tuple[int, int]) -> int:
    """Return the length of the text that `logits_to_text` makes of (h, w) logits, about."""
    return math.ceil(size[0] * size[1] * 2 * 4 / 3)
