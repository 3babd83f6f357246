"""Measure video object segmentation as the DAVIS benchmark does: region similarity J, contour accuracy F, and J&F.

The measures are defined in Perazzi et al., "A benchmark dataset and evaluation methodology for video object
segmentation", CVPR 2016, and Pont-Tuset et al., "The 2017 DAVIS challenge on video object segmentation", 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from sam_endpoint.evaluation.geometry import BOUNDARY_TOLERANCE, Mask, iou

RECALL_THRESHOLD = 0.5
QUARTERS = 4


def contour(mask: Mask) -> Mask:
    """Return the contour pixels of a mask as the DAVIS code draws them.

    A pixel is on the contour if the pixel to its right, below it, or diagonally below has another value. So the contour
    lies between object and background, at the upper left side of the border. Neighbours beyond the edge do not count.

    Args:
        mask: `(H, W)` bool.

    Returns:
        `(H, W)` bool.

    Example:
        >>> contour(np.array([[0, 0, 0], [0, 0, 1]], bool)).astype(int).tolist()
        [[0, 1, 1], [0, 1, 0]]
    """
    border = np.zeros(mask.shape, bool)
    border[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    border[:-1] |= mask[:-1] != mask[1:]
    border[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return border


def contour_accuracy(true: Mask, predicted: Mask) -> float:
    """Return F, the harmonic mean of the precision and recall of contour pixels.

    A contour pixel is correct if a contour pixel of the other mask is within a tolerance of 0.8 % of the image's
    diagonal, rounded up to whole pixels.

    Args:
        true: `(H, W)` bool.
        predicted: `(H, W)` bool.

    Returns:
        F, 0 to 1; 1 if no mask has a contour, and 0 if only one of them has.

    Example:
        >>> true, predicted = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
        >>> true[20:60, 20:60] = True
        >>> predicted[20:60, 20:70] = True
        >>> contour_accuracy(true, true), round(contour_accuracy(true, predicted), 3)
        (1.0, 0.735)
    """
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*true.shape))
    true_contour, predicted_contour = contour(true), contour(predicted)
    if not true_contour.any() or not predicted_contour.any():
        return float(true_contour.any() == predicted_contour.any())
    # Distances are needed only around the contours.
    rows, columns = (np.flatnonzero((true_contour | predicted_contour).any(axis)) for axis in (1, 0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    true_contour, predicted_contour = true_contour[window], predicted_contour[window]
    precision = float((distance_transform_edt(~true_contour) <= tolerance)[predicted_contour].mean())
    recall = float((distance_transform_edt(~predicted_contour) <= tolerance)[true_contour].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class Measure:
    """Statistics of a measure over the frames of one object.

    Attributes:
        mean: mean over the frames.
        recall: share of the frames above RECALL_THRESHOLD.
        decay: mean over the first quarter of the frames minus the mean over the last quarter.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float] | NDArray[np.float64]) -> Measure:
    """Compute the statistics of a measure over frames.

    The quarters are those of the DAVIS code: neighbouring quarters share a frame.

    Args:
        values: `(T,)` the measure in each frame.

    Example:
        >>> statistics([1.0, 0.75, 0.5, 0.25])
        Measure(mean=0.625, recall=0.5, decay=0.5)
    """
    array = np.asarray(values, dtype=np.float64)
    limits = np.round(np.linspace(1, len(array), QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = array[limits[0] : limits[1] + 1], array[limits[-2] : limits[-1] + 1]
    return Measure(
        float(array.mean()), float((array > RECALL_THRESHOLD).mean()), float(first.mean()) - float(last.mean())
    )


@dataclass(frozen=True)
class ObjectQuality:
    """The quality of the masks of one object.

    Attributes:
        region: `(T,)` J, the IoU, in each frame; 1 where the true and the predicted mask are empty.
        contour: `(T,)` F in each frame.
    """

    region: NDArray[np.float64]
    contour: NDArray[np.float64]

    def summary(self) -> dict[str, float]:
        """Return J&F, and the mean, recall and decay of J and F. As in DAVIS, the first and last frame do not count."""
        region, outline = statistics(self.region[1:-1]), statistics(self.contour[1:-1])
        return {
            "J&F": (region.mean + outline.mean) / 2,
            **{f"J {name}": value for name, value in vars(region).items()},
            **{f"F {name}": value for name, value in vars(outline).items()},
        }


def measure_object(true: Sequence[Mask], predicted: Sequence[Mask]) -> ObjectQuality:
    """Compare the masks of one object in all frames, each `(H, W)` bool."""
    pairs = list(zip(true, predicted, strict=True))
    return ObjectQuality(
        np.array([iou(*pair) for pair in pairs]), np.array([contour_accuracy(*pair) for pair in pairs])
    )
