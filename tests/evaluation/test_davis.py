"""The measures of DAVIS against literal definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from sam_endpoint.evaluation.davis import contour, contour_accuracy, measure_object, statistics
from tests import pictures


def literal_contour(mask: np.ndarray) -> np.ndarray:
    """Follow the DAVIS code: compare with the mask moved by one pixel to the left, up, and both."""
    height, width = mask.shape
    right, below, diagonal = (np.zeros_like(mask) for _ in range(3))
    right[:, : width - 1] = mask[:, 1:]
    below[: height - 1] = mask[1:]
    diagonal[: height - 1, : width - 1] = mask[1:, 1:]
    border: np.ndarray = (mask ^ right) | (mask ^ below) | (mask ^ diagonal)
    border[-1] = mask[-1] ^ right[-1]
    border[:, -1] = mask[:, -1] ^ below[:, -1]
    border[-1, -1] = False
    return border


def literal_f(true: np.ndarray, predicted: np.ndarray) -> float:
    """Follow the DAVIS code: dilate each contour with a disc, and count the contour pixels of the other inside it."""
    radius = int(np.ceil(0.008 * np.linalg.norm(true.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = x**2 + y**2 <= radius**2
    a, b = literal_contour(true), literal_contour(predicted)
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    precision = (b & binary_dilation(a, disc)).sum() / b.sum()
    recall = (a & binary_dilation(b, disc)).sum() / a.sum()
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks that overlap, and touch the edges of the image."""
    first = pictures.clutter(120, 160, seed)[..., 0] > 120
    return first, np.roll(first, (seed % 7, 3), (0, 1)) ^ (pictures.clutter(120, 160, seed + 50)[..., 1] > 230)


@pytest.mark.parametrize("seed", range(6))
def test_contour_and_f_are_those_of_the_definition(seed: int) -> None:
    true, predicted = random_masks(seed)
    assert 0 < true.sum() < true.size
    assert np.array_equal(contour(true), literal_contour(true))
    assert contour_accuracy(true, predicted) == pytest.approx(literal_f(true, predicted), abs=1e-12)
    assert contour_accuracy(true, true) == 1


def test_the_tolerance_is_a_share_of_the_diagonal() -> None:
    """480 x 854 pixels, the size of DAVIS, have a tolerance of 8 pixels."""
    true = np.zeros((480, 854), bool)
    true[100:300, 200:500] = True
    assert contour_accuracy(true, np.roll(true, 8, 1)) == 1
    assert contour_accuracy(true, np.roll(true, 9, 1)) < 0.8


def test_empty_masks_count_as_in_davis() -> None:
    empty, full = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    full[5:9, 5:9] = True
    quality = measure_object([empty, empty, full], [empty, full, empty])
    assert quality.region.tolist() == [1, 0, 0] and quality.contour.tolist() == [1, 0, 0]


def test_statistics_leave_out_the_first_and_the_last_frame() -> None:
    masks = [np.zeros((20, 20), bool) for _ in range(5)]
    for mask in masks:
        mask[5:9, 5:9] = True
    other = ~masks[0]
    summary = measure_object(masks, [other, masks[1], masks[2], masks[3], other]).summary()
    assert summary["J&F"] == 1 and summary["J mean"] == summary["F mean"] == summary["J recall"] == 1


def test_decay_compares_the_first_with_the_last_quarter() -> None:
    """The quarters of 9 frames are 0 to 2, 2 to 4, 4 to 6 and 6 to 8; neighbours share a frame."""
    measure = statistics([0.9, 0.8, 0.7, 0, 0, 0, 0.3, 0.2, 0.1])
    assert measure.decay == pytest.approx(0.8 - 0.2)
    assert measure.recall == pytest.approx(3 / 9) and measure.mean == pytest.approx(3 / 9)
