"""Geometry of masks: boxes, centres, boundaries, and how two masks compare."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal


def bounding_box(mask: Mask) -> NDArray[np.float32]:
    """Return x1, y1, x2, y2 around a (height, width) mask that is not empty, (4,) float32.

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[2:4, 5:9] = True
        >>> bounding_box(mask).tolist()
        [5.0, 2.0, 9.0, 4.0]
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def center(mask: Mask) -> tuple[int, int]:
    """Return x, y of the pixel of a (height, width) mask that is farthest from any pixel outside the mask.

    Pixels beyond the image's edge count as outside.
    """
    x1, y1, x2, y2 = bounding_box(mask).astype(int)
    depth = distance_transform_edt(np.pad(mask[y1:y2, x1:x2], 1))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1 + x1, int(y) - 1 + y1


def iou(a: Mask, b: Mask) -> float:
    """Return the intersection over union of two (height, width) masks; 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def boundary_f(true: Mask, predicted: Mask) -> float:
    """Return how well the outline of a predicted mask follows the true outline, 0 to 1.

    F = 2 P R / (P + R). P is the share of the predicted boundary's pixels that lie within a tolerance of the true
    boundary, R the share of the true boundary's pixels within the tolerance of the predicted boundary. The tolerance is
    0.8 % of the image's diagonal, rounded up: 7 pixels for 640 x 480. The definition is that of Csurka et al. (What is
    a good evaluation measure for semantic segmentation?, BMVC 2013) and Perazzi et al. (DAVIS, CVPR 2016); the
    tolerance is that of the DAVIS code.

    Args:
        true: (height, width) bool.
        predicted: (height, width) bool.

    Returns:
        F; 1 if neither mask has a boundary, 0 if only one has.
    """
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*true.shape))
    true_boundary, predicted_boundary = boundary(true), boundary(predicted)
    if not len(true_boundary) or not len(predicted_boundary):
        return float(len(true_boundary) == len(predicted_boundary))
    precision = _share_within(predicted_boundary, true_boundary, tolerance)
    recall = _share_within(true_boundary, predicted_boundary, tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> NDArray[np.int64]:
    """Return y, x of the pixels of a (height, width) mask that have a 4-neighbour outside the mask, (n, 2).

    Where the image's edge cuts the mask there is no boundary.
    """
    padded = np.pad(mask, 1, constant_values=True)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def _share_within(points: NDArray[np.int64], targets: NDArray[np.int64], tolerance: float) -> float:
    """Return the share of points (n, 2) that have a target (m, 2) within the tolerance."""
    distances, _ = KDTree(targets).query(points, distance_upper_bound=tolerance + 1e-6)
    return float(np.isfinite(distances).mean())
