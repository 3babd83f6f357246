"""Geometry of masks, compared with values that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sam_endpoint.evaluation.geometry import Mask, boundary_f, bounding_box, center, iou


def square(x: int, y: int, side: int = 20) -> Mask:
    """Draw a square in a mask of 100 x 100 pixels."""
    mask = np.zeros((100, 100), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_boundary_f_of_shifted_squares() -> None:
    """In 100 x 100 pixels, the tolerance is 2 pixels: 0.8 % of the diagonal, 141.4, rounded up."""
    true = square(30, 30)
    assert boundary_f(true, true) == 1
    assert boundary_f(true, square(32, 30)) == 1
    # After a shift by 3, of 76 boundary pixels 42 are within 2: 19 at the top, 19 at the bottom, 4 on the far side.
    assert boundary_f(true, square(33, 30)) == pytest.approx(42 / 76)
    assert boundary_f(true, square(70, 70)) == 0


def test_boundary_f_weighs_precision_and_recall() -> None:
    true, predicted = square(30, 30), square(30, 30) | square(70, 70)
    # Precision is 0.5, because half of the predicted boundary is right. Recall is 1.
    assert boundary_f(true, predicted) == boundary_f(predicted, true) == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_boundary_f_ignores_the_border_of_the_image() -> None:
    half, smaller, smallest, full = (np.arange(100)[:, None] < np.full(100, rows) for rows in (50, 48, 47, 100))
    assert boundary_f(half, smaller) == 1 and boundary_f(half, smallest) == 0
    assert boundary_f(full, full) == 1 and boundary_f(full, half) == 0 and boundary_f(half, ~full) == 0


def test_iou_of_overlapping_and_of_empty_masks() -> None:
    assert iou(square(30, 30), square(40, 30)) == pytest.approx(200 / 600)
    assert iou(square(0, 0, 0), square(0, 0, 0)) == 1 and iou(square(0, 0), square(0, 0, 0)) == 0


def test_box_and_center_of_a_rectangle() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:31, 20:41] = True
    assert bounding_box(mask).tolist() == [20, 10, 41, 31]
    assert center(mask) == (30, 20)


def test_the_center_avoids_thin_parts() -> None:
    """The mask is a disc with a long handle. The center is that of the disc."""
    y, x = np.mgrid[:60, :120]
    spoon = ((x - 20) ** 2 + (y - 30) ** 2 <= 15**2) | ((abs(y - 30) <= 2) & (x >= 20) & (x < 110))
    assert center(spoon) == (20, 30)
