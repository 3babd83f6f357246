"""Bounding boxes: non-maximum suppression, and the bounding box of a mask."""

from __future__ import annotations

import numpy as np
import torch


def extent(mask: np.ndarray) -> np.ndarray:
    """Return the bounding box of a mask.

    Args:
        mask: (h, w) bool.

    Returns:
        (4,) int64 x1, y1, x2, y2: the first column and row and the last column and row. Zeros for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, dtype=np.int64)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Apply non-maximum suppression, with the same result as torchvision's `nms`.

    torchvision is not used because it does not exist for every build of torch. The IoUs are computed row by row, so the
    memory is linear in the number of boxes.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,) scores. Of boxes with equal scores, the first takes precedence.
        threshold: a box is removed if its IoU with a kept box of a better score is above this threshold.

    Returns:
        Indices of the kept boxes, in descending order of score.

    Example:
        >>> nms(np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]), np.array([0.8, 0.9, 0.7]), 0.5)
        [1, 2]
    """
    remaining = torch.from_numpy(np.argsort(-scores, kind="stable"))
    edges = torch.from_numpy(np.asarray(boxes, dtype=np.float32))
    areas = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    keep = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        keep.append(int(best))
        low = torch.maximum(edges[best, :2], edges[remaining, :2])
        high = torch.minimum(edges[best, 2:], edges[remaining, 2:])
        intersection = (high - low).clamp(min=0).prod(1)
        remaining = remaining[~(intersection / (areas[best] + areas[remaining] - intersection) > threshold)]
    return keep
