"""The `segmentation` of a COCO annotation as compressed run lengths, with every malformed form rejected."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco

from .errors import kind
from .masks import RunLengths
from .prompts.parsing import MAX_COORDINATE


def run_lengths(segmentation: Any, size: tuple[int, int]) -> RunLengths | None:
    """Return COCO's compressed run lengths of a segmentation. Pixels outside the image are cut off.

    pycocotools cannot be given the value unchecked: it reads a list of four numbers as a box, and answers run lengths
    that do not fill the image with uninitialised memory.

    Args:
        segmentation: Polygons `[[x1, y1, x2, y2, ...], ...]`, or `{"size": [height, width], "counts": ...}` with counts
            as compressed text or as a list of whole numbers.
        size: The image's height and width.

    Returns:
        The run lengths, or None if the segmentation is empty.

    Raises:
        ValueError: The segmentation is malformed.
    """
    if not segmentation:
        return None
    height, width = size
    if isinstance(segmentation, list):
        if not all(_is_polygon(polygon) for polygon in segmentation):
            raise ValueError("expected polygons of three points or more, x and y in turn")
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
        raise ValueError(f"expected runs of {height * width} pixels together")
    compressed: RunLengths = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return compressed


def _decompress(text: str) -> list[int]:
    """Return the runs in COCO's compressed text (rleFrString in pycocotools' maskApi.c).

    Each character holds 5 bits, the lowest first; 32 is set if another character follows. From the fourth number on,
    each is the difference to the number two places before.
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
