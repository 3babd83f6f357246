"""Count the rows, images, predictions and failures of a batch job."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sam_endpoint.model.scorer import Answer


@dataclass
class Summary:
    """Statistics of a job or of one part. The summary of a job is the sum of its parts' summaries.

    Attributes:
        rows: number of rows.
        failed: number of rows with an error.
        images: number of images, counted once per part.
        predictions: number of predictions.
        score_sum: sum of the highest predicted IoU of each prediction.
        failures: number of failed rows by reason.
        seconds: time spent by stage (`images`, `model`, `write`), in seconds.
    """

    rows: int = 0
    failed: int = 0
    images: int = 0
    predictions: int = 0
    score_sum: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, part: dict[str, Any]) -> None:
        """Add the summary of a part, as returned by `to_dict`."""
        for name in ("rows", "failed", "images", "predictions", "score_sum"):
            setattr(self, name, getattr(self, name) + part[name])
        self.failures.update(part["failures"])
        for stage, spent in part["seconds"].items():
            self.seconds[stage] += spent

    def count(self, answers: Sequence[Answer]) -> None:
        """Add the answers to rows."""
        errors = [answer["error"] for answer in answers if answer["error"]]
        self.rows += len(answers)
        self.failed += len(errors)
        self.images += len({answer["image_id"] for answer in answers if answer["image_id"]})
        self.failures.update(error.partition(", ")[2] or error for error in errors)
        for answer in answers:
            for prediction in answer["predictions"]:
                self.predictions += 1
                self.score_sum += float(max(mask["iou_score"] for mask in prediction["mask_per_prediction"]))

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics for JSON."""
        return {**vars(self), "failures": dict(self.failures), "seconds": dict(self.seconds)}
