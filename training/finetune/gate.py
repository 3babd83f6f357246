"""The gate: compare a fine-tuned model with its base model on held-out images, and decide which one is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from sam_endpoint.evaluation import metrics
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.evaluate import evaluate
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.evaluation.protocol import PROMPTS
from sam_endpoint.model.errors import BadData
from sam_endpoint.model.segmenter import Segmenter

BASE, CANDIDATE = "base", "fine-tuned"
RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_IMAGES = 5  # minimum number of images for a promotion; with fewer images, the interval is not reliable
CHUNK = 2**22  # maximum number of elements in an array of random draws, to limit memory


@dataclass(frozen=True)
class Interval:
    """The mean difference of a metric, and its bootstrap interval."""

    mean: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Comparison:
    """Metrics of a base model and a fine-tuned model on the same objects.

    Attributes:
        name: The name of the data set.
        tables: A table with the metrics of each object for the base model, and one for the fine-tuned model.
        reports: The summaries of the two tables.
        intervals: The difference in IoU for each kind of prompt: fine-tuned model minus base model.
        images: The number of images with objects.
        problems: The images and masks that were left out of the data set.
    """

    name: str
    tables: tuple[pd.DataFrame, pd.DataFrame]
    reports: tuple[dict[str, Any], dict[str, Any]]
    intervals: Mapping[str, Interval]
    images: int
    problems: Problems

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {
            "data": self.name,
            "images": self.images,
            "things": len(self.tables[0]),
            BASE: self.reports[0],
            CANDIDATE: self.reports[1],
            "difference": {name: asdict(interval) for name, interval in self.intervals.items()},
            "problems": self.problems.to_dict(),
        }

    def format_lines(self) -> str:
        """Return a table with a line for each prompt kind."""
        first, second = (report["figures"]["all"] for report in self.reports)
        head = f"{'mean IoU':16}{BASE:>10}{CANDIDATE:>12}{'difference':>12}{'95 % interval':>20}"
        lines = [f"{self.name}: {self.images} images, {len(self.tables[0])} objects", head]
        for name, interval in self.intervals.items():
            limits = f"{interval.lower:+.3f} to {interval.upper:+.3f}"
            lines.append(f"{name:16}{first[name]:10.3f}{second[name]:12.3f}{interval.mean:+12.3f}{limits:>20}")
        boundary = [report["boundary"]["all"]["box"] for report in self.reports]
        errors = [report["calibration"]["expected error"] for report in self.reports]
        for title, (a, b) in (("boundary F, box", boundary), ("expected error", errors)):
            lines.append(f"{title:16}{a:10.3f}{b:12.3f}{b - a:+12.3f}")
        if self.problems.counts:
            lines += ["problems of the data:", self.problems.format_lines()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate on a fine-tuned model.

    Attributes:
        name: `better`, `equal` or `worse`.
        reasons: Sentences that explain the verdict.
    """

    name: str
    reasons: Sequence[str]

    @property
    def promotes(self) -> bool:
        """Whether the fine-tuned model may replace the base model."""
        return self.name == "better"


def compare(base: Segmenter, candidate: Segmenter, ground_truth: CocoDataset, name: str, seed: int) -> Comparison:
    """Evaluate two models on the same images.

    Args:
        base: The model before fine-tuning.
        candidate: The fine-tuned model.
        ground_truth: The images.
        name: The name of the data set, for reports.
        seed: The seed of the bootstrap.

    Raises:
        BadData: The data has no usable object.
    """
    results, _ = evaluate({BASE: base, CANDIDATE: candidate}, ground_truth)
    first, second = (result.objects for result in results)
    if not len(first):
        raise BadData(f"'{name}': the data has no usable object\n{ground_truth.problems.format_lines()}".rstrip())
    names = first["image"].to_numpy()
    intervals = {
        prompt: paired_interval((second[prompt] - first[prompt]).to_numpy(), names, seed) for prompt in PROMPTS
    }
    reports = metrics.summarize(first), metrics.summarize(second)
    return Comparison(name, (first, second), reports, intervals, len(set(names)), ground_truth.problems)


def paired_interval(
    differences: np.ndarray, images: np.ndarray, seed: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Interval:
    """Return the mean of paired differences and its bootstrap interval over images.

    Objects of one image are alike, so the bootstrap draws whole images with replacement (cluster bootstrap; Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The interval is the expanded percentile
    interval of Hesterberg (What teachers should know about the bootstrap, The American Statistician, 2015). Unlike the
    plain percentile interval, it is not too narrow for small numbers of images.

    Args:
        differences: (objects,) the difference of each object.
        images: (objects,) the image of each object.
        seed: The seed of the random draws.
        resamples: The number of random draws.
        confidence: The confidence level of the interval, such as 0.95.

    Example:
        >>> interval = paired_interval(np.array([0.1, 0.2, 0.3]), np.array(["a", "a", "b"]), seed=1)
        >>> round(interval.mean, 3), round(interval.lower, 3), round(interval.upper, 3)
        (0.2, 0.15, 0.3)
    """
    _, owners = np.unique(images.astype(str), return_inverse=True)
    sums, counts = np.bincount(owners, differences), np.bincount(owners).astype(float)
    rng = np.random.default_rng([seed, 3])
    step = max(1, CHUNK // len(sums))
    means = []
    for start in range(0, resamples, step):
        drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), min(step, resamples - start))
        means.append((drawn @ sums) / (drawn @ counts))
    count = max(2, len(sums))
    tail = norm.sf(math.sqrt(count / (count - 1)) * t.isf((1 - confidence) / 2, count - 1))
    lower, upper = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(differences.mean()), float(lower), float(upper))


def judge(held_out: Comparison, guards: Sequence[Comparison], figure: str, margin: float, tolerance: float) -> Verdict:
    """Return the gate's verdict.

    The verdict is `worse` in each of these cases:

    - The interval of `figure` on the held-out images is below 0.
    - The mean IoU of another kind of prompt on the held-out images falls by more than `tolerance`.
    - On a guard, the mean IoU of a kind of prompt falls by more than `tolerance`, or its interval is below 0.

    Otherwise, the verdict is `better` if the interval of `figure` is above `margin`, and there are at least MIN_IMAGES
    held-out images. In all other cases, the verdict is `equal`. The kinds of prompts are those of `metrics.SCORED`.

    Args:
        held_out: The comparison on the held-out images.
        guards: The comparisons on the guards. A guard is a data set on which the model must not get worse.
        figure: The kind of prompt whose IoU decides.
        margin: The gain in IoU that the model must exceed.
        tolerance: The largest loss in IoU that is allowed for other kinds of prompts and for guards.
    """
    losses = []
    decisive = held_out.intervals[figure]
    if decisive.upper < 0:
        losses.append(f"{figure}: {_describe(decisive)}; the interval is below 0")
    for name in metrics.SCORED:
        if (interval := held_out.intervals[name]).mean < -tolerance and name != figure:
            losses.append(f"{name}: {_describe(interval)}, a loss of more than {tolerance:g}")
    for guard in guards:
        for name in dict.fromkeys((figure, *metrics.SCORED)):
            interval = guard.intervals[name]
            if interval.mean < -tolerance or interval.upper < 0:
                losses.append(f"guard {guard.name}, {name}: {_describe(interval)}, a loss")
    if losses:
        return Verdict("worse", losses)
    if decisive.lower <= margin:
        return Verdict("equal", [f"{figure}: {_describe(decisive)}; the lower bound is not above {margin:g}"])
    if held_out.images < MIN_IMAGES:
        return Verdict(
            "equal", [f"expected at least {MIN_IMAGES} held-out images for a promotion, got {held_out.images}"]
        )
    return Verdict("better", [f"{figure}: {_describe(decisive)}; the lower bound is above {margin:g}"])


def _describe(interval: Interval) -> str:
    return f"{interval.mean:+.3f} (95 % interval {interval.lower:+.3f} to {interval.upper:+.3f})"
