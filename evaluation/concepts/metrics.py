"""Compute cgF1, the metric of SAM 3 for concepts, from the instances that a model finds in images.

Source: Carion et al., "SAM 3: Segment Anything with Concepts", 2025 (https://arxiv.org/abs/2511.16719), and the
authors' evaluation code, `sam3/eval/cgf1_eval.py` in https://github.com/facebookresearch/sam3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class PairResult:
    """The result for a pair of an image and a concept.

    Attributes:
        image_id: The id of the image.
        category_id: The id of the category that the concept stands for.
        ious: `(P, T)` mask IoU of the P predicted and the T true instances. T is 0 for a negative pair.
        scores: `(P,)` scores of the predicted instances.
    """

    image_id: object
    category_id: object
    ious: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """The counts of some pairs, from which all metrics follow.

    An instance is a predicted instance with at least the minimum score.

    Attributes:
        matched: `(10,)` true positives in positive pairs, for each of IOU_THRESHOLDS.
        predicted: The number of predicted instances in positive pairs.
        true: The number of true instances.
        presence: `(2, 2)` number of pairs by presence of the concept (0 or 1) and by whether an instance is predicted.
    """

    matched: NDArray[np.int64]
    predicted: int
    true: int
    presence: NDArray[np.int64]

    @property
    def positive_f1(self) -> NDArray[np.float64] | None:
        """The micro-averaged F1 of positive pairs, `(10,)`; None without a positive pair."""
        return 2 * self.matched / (self.predicted + self.true) if self.true else None

    @property
    def presence_mcc(self) -> float | None:
        """The Matthews correlation coefficient of presence, -1 to 1. See `matthews_correlation`."""
        return matthews_correlation(self.presence)


def matthews_correlation(table: NDArray[np.int64]) -> float | None:
    """Return Matthews' correlation coefficient of a binary classification.

    MCC = (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN))

    Args:
        table: `(2, 2)` number of cases by true and by predicted class.

    Returns:
        The coefficient, -1 to 1. 0 if all cases have the same predicted class, as in the authors' code. None if all
        cases have the same true class, because such data cannot tell.

    Example:
        >>> matthews_correlation(np.array([[4, 1], [0, 5]])), matthews_correlation(np.array([[0, 0], [1, 5]]))
        (0.816496580927726, None)
    """
    (true_negative, false_positive), (false_negative, true_positive) = table.tolist()
    if not table.sum(1).all():
        return None
    margins = [int(margin) for margin in (*table.sum(0), *table.sum(1))]
    product = true_positive * true_negative - false_positive * false_negative
    return float(product / math.sqrt(math.prod(margins))) if all(margins) else 0.0


def match(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of each matched pair of a predicted and a true instance: the matching with the highest total IoU.

    Args:
        ious: `(P, T)` mask IoU.

    Example:
        >>> match(np.array([[0.9, 0.8], [0.6, 0.0]])).tolist()
        [0.8, 0.6]
    """
    rows, columns = linear_sum_assignment(ious, maximize=True)
    matched: NDArray[np.float64] = ious[rows, columns]
    return matched


def count(pairs: Iterable[PairResult], min_score: float) -> Counts:
    """Count the true positives and the presence of concepts.

    Args:
        pairs: The pairs.
        min_score: The minimum score of an instance.
    """
    matched, presence = np.zeros(len(IOU_THRESHOLDS), np.int64), np.zeros((2, 2), np.int64)
    predicted = true = 0
    for pair in pairs:
        ious = pair.ious[pair.scores >= min_score]
        presence[int(ious.shape[1] > 0), int(ious.shape[0] > 0)] += 1
        if ious.shape[1]:
            matched += (match(ious)[:, None] >= IOU_THRESHOLDS).sum(0)
            predicted += ious.shape[0]
            true += ious.shape[1]
    return Counts(matched, predicted, true, presence)


def summarize(counts: Counts) -> dict[str, float | None]:
    """Compute the metrics of SAM 3.

    A pair is an image and a concept. It is positive if the image has an instance of the concept. Predicted and true
    instances are matched one to one, so that the total IoU is highest. TP(t) is the number of matches with an IoU of
    at least t, in all positive pairs. FP(t) and FN(t) are the numbers of all other predicted and true instances of
    positive pairs.

        pmF1   = mean over t in 0.5, 0.55, ..., 0.95 of 2 TP(t) / (2 TP(t) + FP(t) + FN(t))
        IL_MCC = Matthews' correlation coefficient, over all pairs, of "the image has an instance of the concept" and
                 "the model predicts an instance"
        cgF1   = pmF1 * IL_MCC

    The paper states cgF1 in percent: 100 * pmF1 * IL_MCC. The authors' code adds 0.0001 to the denominators of
    precision, recall and F1, which lowers pmF1 by about 0.0001; this function does not.

    Args:
        counts: The counts of all pairs.

    Returns:
        `cgF1`, `pmF1` and `IL_MCC`; `cgF1 50`, `pmF1 50`, `cgF1 75` and `pmF1 75` at a single IoU threshold;
        `IL recall` and `IL precision`, those of presence. A metric that the data does not determine is None: pmF1
        without a positive pair, and IL_MCC and cgF1 without positive or without negative pairs.

    Example:
        >>> positive = PairResult(1, 1, np.array([[0.72]]), np.array([0.9]))
        >>> negative = PairResult(2, 1, np.zeros((0, 0)), np.zeros(0))
        >>> summarize(count([positive, negative], min_score=0.5))["cgF1"]
        0.5
    """
    f1, mcc = counts.positive_f1, counts.presence_mcc
    values: dict[str, float | None] = {"cgF1": None, "pmF1": None, "IL_MCC": mcc}
    for suffix, at in (("", slice(None)), (" 50", slice(0, 1)), (" 75", slice(5, 6))):
        value = None if f1 is None else float(f1[at].mean())
        values[f"pmF1{suffix}"] = value
        values[f"cgF1{suffix}"] = None if value is None or mcc is None else value * mcc
    found = counts.presence[1, 1]
    values["IL recall"] = _share(found, counts.presence[1].sum())
    values["IL precision"] = _share(found, counts.presence[:, 1].sum())
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def sweep(pairs: Sequence[PairResult], min_scores: Sequence[float]) -> list[dict[str, float | None]]:
    """Compute the metrics for several minimum scores. Each item also has `min_score`."""
    return [{"min_score": float(score), **summarize(count(pairs, score))} for score in min_scores]
