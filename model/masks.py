"""Masks to PNG, RLE and polygons, and back."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from model import threads

ENCODINGS = ("png", "rle", "polygon")
BLANK = 2**18  # zeros of a PNG that are deflated together, and once only


@dataclass(frozen=True)
class Cut:
    """The mask of an image of `size` (h, w) that is cut to a box, outside of which it is nothing.

    inside: (rows, columns) bool, whose first pixel is the image's at `top`, `left`.
    """

    inside: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    def whole(self) -> np.ndarray:
        """The (h, w) bool mask."""
        mask = np.zeros(self.size, bool)
        rows, columns = self.inside.shape
        mask[self.top : self.top + rows, self.left : self.left + columns] = self.inside
        return mask

    def within(self, top: int, left: int, size: tuple[int, int]) -> Cut:
        """The same mask in a larger image of that size, of which its image is the part at `top`, `left`."""
        return Cut(self.inside, self.top + top, self.left + left, size)


def _cut(mask: np.ndarray | Cut) -> Cut:
    return mask if isinstance(mask, Cut) else Cut(mask, 0, 0, (mask.shape[0], mask.shape[1]))


def to_rle(mask: np.ndarray | Cut) -> dict[str, Any]:
    """COCO's compressed run lengths of a (h, w) bool mask: `{"size": [h, w], "counts": bytes}`.

    Runs go down the columns. They are found where a pixel differs from the one above it, row by row as the mask lies in
    memory, and put in order then, by a stable sort of their columns: there are far fewer than pixels.
    """
    cut = _cut(mask)
    height, width = cut.size
    rows, columns = cut.inside.shape
    # Above the first row is the last one of the column before, in a box as high as the image; else nothing.
    full = rows == height
    edges = np.zeros((rows + (not full), columns), bool)
    inside = cut.inside
    if rows and columns:
        np.not_equal(inside[1:], inside[:-1], out=edges[1:rows])
        if full:
            edges[0, 0] = inside[0, 0]
            np.not_equal(inside[0, 1:], inside[-1, :-1], out=edges[0, 1:])
        else:
            edges[0], edges[rows] = inside[0], inside[-1]
    y, x = np.divmod(np.flatnonzero(edges), max(1, columns))
    order = np.argsort(x.astype(np.min_scalar_type(columns)), kind="stable")
    places = ((x + cut.left) * height + y + cut.top)[order]
    if full and columns and inside[-1, -1]:  # the column after the box begins with nothing
        places = np.append(places, (cut.left + columns) * height)
    counts = np.diff(places, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def from_rle(rle: dict[str, Any]) -> np.ndarray:
    """The (h, w) bool mask of COCO's compressed run lengths."""
    return coco.decode(rle).view(bool)


def to_png(mask: np.ndarray | Cut) -> str:
    """A (h, w) bool mask as base64 text of an 8-bit grey PNG of 0 and 255.

    Written here, without a choice of filter for each row (PNG specification, sections 9 and 11): two values need none,
    and runs of one value are what deflate's run-length strategy is for. Rows above and below the mask are not looked
    at: a small mask of a large image is written several times as fast.
    """
    cut = _cut(mask)
    height, width = cut.size
    rows, columns = cut.inside.shape
    lines = np.zeros((rows, 1 + width), np.uint8)  # a line begins with its filter, 0
    np.multiply(cut.inside, np.uint8(255), out=lines[:, 1 + cut.left : 1 + cut.left + columns])
    data = _deflated(cut.top * (1 + width), lines, (height - cut.top - rows) * (1 + width))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    png = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + png).decode("ascii")


def _deflated(above: int, lines: np.ndarray, below: int) -> bytes:
    """zlib's format (RFC 1950) of so many zeros, the bytes of `lines`, and so many zeros.

    BLANK zeros at a time are deflated once and for all: blocks that refer to nothing before them and end at a whole
    byte can stand anywhere (RFC 1951). Of zeros, the checksum is known.
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
    deflate = _run_lengths()
    return deflate.compress(bytes(BLANK)) + deflate.flush(zlib.Z_FULL_FLUSH)


def _run_lengths() -> Any:
    """Deflate's run-length strategy, without zlib's header and checksum."""
    return zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)


def to_polygons(mask: np.ndarray) -> list[list[float]]:
    """The outer contours of a (h, w) bool mask as COCO polygons `[[x1, y1, x2, y2, ...], ...]`, one a piece.

    The contours run along pixel edges (a single pixel at x, y is the square from x,y to x+1,y+1), so that filling
    them gives the mask back, except for its holes. Pieces that touch only at a corner are separate polygons. Pieces
    come in the order of their topmost, then leftmost pixel.
    """
    padded = np.pad(mask.view(np.uint8), 1)
    # An edge is walked with the mask on its right: along tops to the right, along bottoms to the left, and so on.
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
    return _outer_loops(np.concatenate(starts), np.concatenate(ends), stride)


def _outer_loops(starts: np.ndarray, ends: np.ndarray, stride: int) -> list[list[float]]:
    """Follows directed unit edges between grid vertices (numbered y * stride + x) into closed loops.

    Where two pieces touch at a corner two edges leave one vertex; turning right keeps to the same piece. Loops that
    run the other way round enclose holes and are left out.
    """
    leaving: dict[int, list[int]] = {}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        leaving.setdefault(start, []).append(end)
    right_turn = {1: stride, stride: -1, -1: -stride, -stride: 1}
    polygons = []
    for first in sorted(leaving):
        while leaving[first]:
            here, step = leaving[first].pop(), 0
            step = here - first
            corners, position, doubled_area = [first], first, 0
            while True:
                doubled_area += (position % stride) * (here // stride) - (here % stride) * (position // stride)
                position = here
                if position == first:
                    break
                ways = leaving[position]
                turn = position + right_turn[step]
                here = turn if turn in ways else ways[0]
                ways.remove(here)
                if here - position != step:
                    corners.append(position)
                    step = here - position
            if doubled_area > 0:
                polygons.append([float(n) for corner in corners for n in (corner % stride, corner // stride)])
    return polygons


def encode(mask: np.ndarray | Cut, encoding: str) -> dict[str, Any]:
    """A (h, w) bool mask as the answer carries it: `encoded_binary_mask`, `size`, `bbox` and `area`.

    encoding: one of ENCODINGS. `bbox` is [x, y, w, h] and `area` a pixel count, both as pycocotools has them.
    """
    return _described(to_rle(mask), mask, encoding)


def encode_all(masks: Sequence[np.ndarray | Cut], encoding: str) -> list[dict[str, Any]]:
    """`encode` for each; PNGs side by side in threads, since deflate lets go of Python's lock."""
    if encoding != "png":
        return [encode(mask, encoding) for mask in masks]
    return threads.each(partial(encode, encoding=encoding), masks)


def encode_rle(rle: dict[str, Any], encoding: str) -> dict[str, Any]:
    """The same of compressed run lengths, which become a mask only where the encoding needs one."""
    return _described(rle, None if encoding == "rle" else from_rle(rle), encoding)


def _described(rle: dict[str, Any], mask: np.ndarray | Cut | None, encoding: str) -> dict[str, Any]:
    if mask is None:
        text = rle["counts"].decode("ascii")
    elif encoding == "polygon":
        text = json.dumps(to_polygons(mask.whole() if isinstance(mask, Cut) else mask))
    else:
        text = rle["counts"].decode("ascii") if encoding == "rle" else to_png(mask)
    return {
        "encoded_binary_mask": text,
        "size": [int(side) for side in rle["size"]],
        "bbox": [float(number) for number in coco.toBbox(rle)],
        "area": int(coco.area(rle)),
    }


def decode(text: str, encoding: str, size: tuple[int, int]) -> np.ndarray:
    """The (h, w) bool mask back from `encoded_binary_mask`; `size` is the answer's (height, width)."""
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
    """(h, w) low-resolution logits as base64 text of a float16 .npy."""
    largest = np.finfo(np.float16).max
    buffer = io.BytesIO()
    np.save(buffer, np.clip(logits, -largest, largest).astype(np.float16), allow_pickle=False)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")
