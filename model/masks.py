"""Masks to PNG, RLE and polygons, and back."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

ENCODINGS = ("png", "rle", "polygon")


def to_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a (h, w) bool mask: `{"size": [h, w], "counts": bytes}`."""
    return coco.encode(np.asfortranarray(mask.astype(np.uint8, copy=False)))


def from_rle(rle: dict[str, Any]) -> np.ndarray:
    """The (h, w) bool mask of COCO's compressed run lengths."""
    return coco.decode(rle).view(bool)


def to_png(mask: np.ndarray) -> str:
    """A (h, w) bool mask as base64 text of an 8-bit grey PNG of 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getbuffer()).decode("ascii")


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


def encode(mask: np.ndarray, encoding: str) -> dict[str, Any]:
    """A (h, w) bool mask as the answer carries it: `encoded_binary_mask`, `size`, `bbox` and `area`.

    encoding: one of ENCODINGS. `bbox` is [x, y, w, h] and `area` a pixel count, both as pycocotools has them.
    """
    return _described(to_rle(mask), mask, encoding)


def encode_rle(rle: dict[str, Any], encoding: str) -> dict[str, Any]:
    """The same of compressed run lengths, which become a mask only where the encoding needs one."""
    return _described(rle, None if encoding == "rle" else from_rle(rle), encoding)


def _described(rle: dict[str, Any], mask: np.ndarray | None, encoding: str) -> dict[str, Any]:
    if mask is None:
        text = rle["counts"].decode("ascii")
    elif encoding == "polygon":
        text = json.dumps(to_polygons(mask))
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
