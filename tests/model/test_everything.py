"""Segmenting everything: agreement with the slow reference implementation, and the parts of the algorithm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from sam_endpoint.model import families, masks
from sam_endpoint.model.boxes import nms
from sam_endpoint.model.everything import Grid, crop_boxes, everything, point_grid
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.regions import remove_small_regions
from sam_endpoint.model.segmenter import Segmenter
from tests import pictures
from tests.model import literal
from tests.model.encodings import cached_embedding

CASES: dict[str, dict[str, Any]] = {
    "plain": {"points_per_side": 9},
    "strict": {"points_per_side": 8, "box_nms_thresh": 0.3},
    "crops": {"points_per_side": 6, "crop_n_layers": 1},
    "two layers": {"points_per_side": 4, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
    "overlap": {"points_per_side": 5, "crop_n_layers": 1, "crop_overlap_ratio": 0.6, "crop_nms_thresh": 0.4},
    "regions": {"points_per_side": 7, "min_mask_region_area": 120},
    "regions and crops": {"points_per_side": 5, "crop_n_layers": 1, "min_mask_region_area": 60},
}
# A checkpoint with random weights does not predict an IoU, and its masks cover the whole image, so that the usual
# suppression leaves only one mask. These thresholds let a part of the masks pass.
LOOSE_SUPPRESSION = {"box_nms_thresh": 0.99, "crop_nms_thresh": 0.99}
THRESHOLDS = {
    "sam": {"pred_iou_thresh": 0.1, "stability_score_thresh": 0.5, "stability_score_offset": 0.01, **LOOSE_SUPPRESSION},
    "sam2": {
        "pred_iou_thresh": 0.4,
        "stability_score_thresh": 0.6,
        "stability_score_offset": 0.05,
        **LOOSE_SUPPRESSION,
    },
    "sam-tiny": {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.6, "stability_score_offset": 0.2},
    "sam2-tiny": {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.6, "stability_score_offset": 0.2},
}


@pytest.fixture(scope="module", params=["sam", "sam2", "sam-tiny", "sam2-tiny"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Segmenter, Any]:
    """Return the name of a checkpoint, its segmenter, and the reference implementation's predictor."""
    embedded = {"sam-tiny": package.EMBEDDED, "sam2-tiny": package.EMBEDDED_SAM2}
    source = embedded.get(request.param) or request.getfixturevalue(f"{request.param}_folder")
    segmenter = Segmenter.load(str(source), "cpu")
    folder = tmp_path_factory.mktemp("resaved")
    families.save(segmenter.family, folder)
    return request.param, segmenter, literal.PREDICTORS[segmenter.family.name](folder)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference_implementation(subject: tuple[str, Segmenter, Any], case: str) -> None:
    name, segmenter, predict = subject
    settings = {**CASES[case], **THRESHOLDS[name]}
    image = pictures.clutter(150, 212)
    expected = literal.generate(predict, image, **settings)
    actual = everything(
        segmenter,
        cached_embedding(segmenter, image),
        lambda box: cached_embedding(segmenter, image[box[1] : box[3], box[0] : box[2]]),
        Grid(points_per_batch=16, **settings),
    )
    assert len(expected) >= 2, "the case shows nothing"
    assert len(actual) == len(expected)
    assert np.allclose([item.point for item in actual], [item.point for item in expected], atol=1e-3)
    assert [item.crop for item in actual] == [item.crop for item in expected]
    assert [item.score for item in actual] == pytest.approx([item.score for item in expected], abs=1e-3)
    for item, reference in zip(actual, expected, strict=True):
        mask = masks.from_rle(item.rle)
        # Rounding may change one pixel, which is more than 0.002 of a small mask.
        assert item.stability == pytest.approx(reference.stability, abs=max(2e-3, 1.01 / mask.sum()))
        assert (mask & reference.mask).sum() >= 0.999 * (mask | reference.mask).sum()


def test_nms_equals_brute_force_nms() -> None:
    rng = np.random.default_rng(5)
    for count in (0, 1, 2, 40, 300):
        corners = rng.integers(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(0, 40, (count, 2))], axis=1)
        scores = rng.integers(0, 20, count) / 20  # many scores are equal
        order = sorted(range(count), key=lambda i: -scores[i])
        for threshold in (0.0, 0.3, 0.7, 1.0):
            expected = literal.brute_force_nms([tuple(boxes[i].tolist()) for i in order], threshold, order)
            assert nms(boxes, scores, threshold) == expected


def test_removes_the_same_small_regions_as_a_flood_fill() -> None:
    rng = np.random.default_rng(6)
    for density in (0.2, 0.5, 0.8):
        mask = ndimage.uniform_filter(rng.random((60, 80)), 3) < density
        for area in (1, 5, 40, 10_000):
            for holes in (True, False):
                ours, changed = remove_small_regions(mask, area, holes)
                theirs, also_changed = literal.remove_regions(mask, area, holes)
                assert changed == also_changed
                assert (ours == theirs).all()


def test_points_are_the_centers_of_grid_cells() -> None:
    assert point_grid(2, (40, 80)).tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


def test_crops_cover_the_image_and_overlap() -> None:
    boxes = list(crop_boxes((300, 500), Grid(crop_n_layers=2)))
    assert [layer for layer, _ in boxes] == [0] + [1] * 4 + [2] * 16
    assert boxes[0][1] == (0, 0, 500, 300)
    for layer in (1, 2):
        covered = np.zeros((300, 500), dtype=int)
        for at, (x1, y1, x2, y2) in boxes:
            covered[y1:y2, x1:x2] += at == layer
        assert covered.min() == 1
        assert covered.max() == 4


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 2)])
def test_segments_everything_in_images_of_a_few_pixels(tiny: Segmenter, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 120, dtype=np.uint8)
    grid = Grid(points_per_side=2, crop_n_layers=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    objects = everything(
        tiny, tiny.embed([image])[0], lambda box: tiny.embed([image[box[1] : box[3], box[0] : box[2]]])[0], grid
    )
    assert all(tuple(item.rle["size"]) == size for item in objects)


TWELVE_MEGAPIXELS = """
import numpy as np, sys
from sam_endpoint.model.everything import Grid, everything
from sam_endpoint.model.segmenter import Segmenter
from benchmarks import memory
from tests import pictures
segmenter = Segmenter.load(sys.argv[1], "cpu")
image = pictures.clutter(3000, 4000)
embedding = segmenter.embed([image])[0]
memory.reset_peak()
before = memory.resident()
loose = Grid(points_per_side=9, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
found = everything(segmenter, embedding, None, loose)
print(len(found), (memory.peak() - before) // 1_000_000)
"""


def test_hundreds_of_masks_of_12_megapixels_need_less_than_a_gigabyte() -> None:
    script = [sys.executable, "-c", TWELVE_MEGAPIXELS, str(package.EMBEDDED)]
    root = Path(__file__).resolve().parents[2]
    count, megabytes = map(
        int, subprocess.run(script, cwd=root, check=True, capture_output=True, text=True).stdout.split()
    )
    assert count >= 200
    assert megabytes < 1000
