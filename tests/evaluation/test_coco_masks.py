"""The `segmentation` of COCO annotations, well-formed and malformed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.model import masks
from sam_endpoint.model.coco_masks import run_lengths
from tests.evaluation.coco_files import to_polygons, to_runs


@pytest.mark.parametrize("seed", range(5))
def test_reads_the_same_mask_from_every_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((37, 53), bool)
    for _ in range(4):
        y, x = rng.integers(0, 30), rng.integers(0, 45)
        mask[y : y + rng.integers(2, 20), x : x + rng.integers(2, 20)] ^= True
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
    outlines, filled = to_polygons(mask)
    forms: list[tuple[Any, Mask]] = [
        ({"size": [37, 53], "counts": text}, mask),
        (to_runs(mask), mask),
        (outlines, filled),
    ]
    for segmentation, expected in forms:
        rle = run_lengths(json.loads(json.dumps(segmentation)), (37, 53))
        assert rle is not None and np.array_equal(masks.from_rle(rle), expected)


@pytest.mark.parametrize("segmentation", [None, [], {}])
def test_returns_none_for_an_absent_mask(segmentation: object) -> None:
    assert run_lengths(segmentation, (10, 10)) is None


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5]], "polygons of at least three points"),  # pycocotools reads it as a box
        ([[1, 1, 5, 1, 5]], "polygons of at least three points"),
        ([[1, 1, 5, 1, 5, float("nan")]], "polygons of at least three points"),
        ([[1, 1, 1e12, 1, 5, 5]], "polygons of at least three points"),
        ([[1, 1, 5, 1, "5", 5]], "polygons of at least three points"),
        ("mask.png", "text of 8 characters"),
        ({"size": [10, 10]}, "an object with 1 keys"),
        ({"size": [9, 10], "counts": [90]}, r"size \[10, 10\], got \[9, 10\]"),
        ({"size": [10, 10], "counts": [50, 10]}, "run lengths with a sum of 100 pixels"),
        ({"size": [10, 10], "counts": [150, -50]}, "run lengths with a sum of 100 pixels"),
        ({"size": [10, 10], "counts": ""}, "run lengths with a sum of 100 pixels"),
        ({"size": [10, 10], "counts": "1000000000"}, "run lengths with a sum of 100 pixels"),
        ({"size": [10, 10], "counts": "äöü"}, "compressed run lengths, got other text"),
    ],
)
def test_rejects_malformed_masks_with_the_expected_content(segmentation: object, message: str) -> None:
    """For several of these, pycocotools returns uninitialised memory."""
    with pytest.raises(ValueError, match=message):
        run_lengths(segmentation, (10, 10))
