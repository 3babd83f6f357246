"""Read the `segmentation` of a COCO annotation, and reject malformed segmentations."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco

from .errors import kind
from .masks import RunLengths
from .prompts.parsing import MAX_COORDINATE


def run_lengths(segmentation: Any, size: tuple[int, int]) -> RunLengths | None:
    """Convert a segmentation to COCO compressed run lengths. Polygons are clipped to the image.

    The value is checked before pycocotools reads it. pycocotools takes a list of four numbers for a box, and returns
    uninitialised memory for run lengths that do not cover the image exactly.

    Args:
        segmentation: polygons `[[x1, y1, x2, y2, ...], ...]`, or `{"size": [height, width], "counts": ...}` with counts
            as compressed text or as a list of whole numbers.
        size: (height, width) of the image in pixels.

    Returns:
        The run lengths, or None if the segmentation is empty.

    Raises:
        ValueError: the segmentation is malformed.

    Example:
        >>> run_lengths({"size": [2, 2], "counts": [1, 2, 1]}, (2, 2))
        {'size': [2, 2], 'counts': b'121'}
        >>> run_lengths([[0, 0, 1, 1]], (2, 2))
        Traceback (most recent call last):
        ValueError: expected polygons of at least three points, as a list x1, y1, x2, y2, ...
    """
    if not segmentation:
        return None
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(polygon) for polygon in segmentation):
            raise ValueError("expected polygons of at least three points, as a list x1, y1, x2, y2, ...")
        polygons = [list(map(float, polygon)) for polygon in segmentation]
        merged: RunLengths = coco.merge(coco.frPyObjects(polygons, height, width))
        return merged
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if not isinstance(counts, (str, list)):
        raise ValueError(f"expected polygons or an object with size and counts, got {kind(segmentation)}")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"expected run lengths of size [{height}, {width}], got {segmentation.get('size')}")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"expected run lengths with a sum of {height * width} pixels")
    compressed: RunLengths = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def _decompress(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed text (rleFrString in pycocotools' maskApi.c).

    Each character minus 48 holds 5 bits of a number, the lowest bits first. Bit 32 is set if the number continues in
    the next character. From the fourth number on, the text stores the difference to the number two places before.

    Raises:
        ValueError: the text holds other characters or numbers that are too long.
    """
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


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    # The comparison is false for NaN.
    return all(isinstance(number, (int, float)) and abs(number) <= MAX_COORDINATE for number in polygon)
