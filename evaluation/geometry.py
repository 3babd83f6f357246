"""Compute boxes, centres and boundaries of masks, and compare masks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal


def bounding_box(mask: Mask) -> NDArray[np.float32]:
    """Return the bounding box of a mask.

    Args:
        mask: `(H, W)` bool, not empty.

    Returns:
        `(4,)` float32, x1, y1, x2, y2 in pixels. x2 and y2 are the first column and row after the mask.

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[2:4, 5:9] = True
        >>> bounding_box(mask).tolist()
        [5.0, 2.0, 9.0, 4.0]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def center(mask: Mask) -> tuple[int, int]:
    """Return the pixel of a mask that has the largest distance from all pixels outside the mask.

    Pixels beyond the edge of the image count as outside. The SAM papers place simulated clicks at this pixel.

    Args:
        mask: `(H, W)` bool, not empty.

    Returns:
        x and y of the pixel.

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[2:7, 4:9] = True
        >>> np.array(center(mask)).tolist()
        [6, 4]
    """
    x1, y1, x2, y2 = bounding_box(mask).astype(int)
    depth = distance_transform_edt(np.pad(mask[y1:y2, x1:x2], 1))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1 + int(x1), int(y) - 1 + int(y1)


def iou(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two masks (the Jaccard index).

    Args:
        a: `(H, W)` bool.
        b: `(H, W)` bool.

    Returns:
        The IoU, 0 to 1; 1 if both masks are empty.

    Example:
        >>> left = np.array([[True, True, False, False]])
        >>> right = np.array([[False, True, True, False]])
        >>> round(iou(left, right), 4)
        0.3333
    """
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def boundary_f(true: Mask, predicted: Mask) -> float:
    """Return the boundary F-measure of a predicted mask.

    F = 2 P R / (P + R). The precision P is the share of the predicted boundary within a tolerance of the true boundary.
    The recall R is the share of the true boundary within the tolerance of the predicted boundary. The tolerance is
    0.8 % of the image's diagonal, rounded up to whole pixels: 7 pixels for 640 x 480.

    The measure is defined in Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013,
    and in Perazzi et al., "A benchmark dataset and evaluation methodology for video object segmentation" (DAVIS), CVPR
    2016. The tolerance is the default of the DAVIS code.

    Args:
        true: `(H, W)` bool.
        predicted: `(H, W)` bool.

    Returns:
        F, 0 to 1. F is 1 if no mask has a boundary, and 0 if only one of them has.

    Example:
        >>> true, predicted = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
        >>> true[20:60, 20:60] = True
        >>> predicted[20:60, 20:70] = True
        >>> round(boundary_f(true, true), 3), round(boundary_f(true, predicted), 3)
        (1.0, 0.735)
    """
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*true.shape))
    true_boundary, predicted_boundary = boundary(true), boundary(predicted)
    if not len(true_boundary) or not len(predicted_boundary):
        return float(len(true_boundary) == len(predicted_boundary))
    precision = _share_within(predicted_boundary, true_boundary, tolerance)
    recall = _share_within(true_boundary, predicted_boundary, tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> NDArray[np.int64]:
    """Return the boundary pixels of a mask: those with a 4-neighbour outside the mask.

    Neighbours beyond the edge of the image do not count, so a mask has no boundary along the edge.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `(N, 2)` y and x of the pixels.
    """
    padded = np.pad(mask, 1, constant_values=True)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def _share_within(points: NDArray[np.int64], targets: NDArray[np.int64], tolerance: float) -> float:
    """Return the share of `(N, 2)` points with one of the `(M, 2)` targets within the tolerance, in pixels."""
    distances, _ = KDTree(targets).query(points, distance_upper_bound=tolerance + 1e-6)
    return float(np.isfinite(distances).mean())
