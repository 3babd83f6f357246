"""Figures of many objects, by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from model import masks
from training import figures
from training.judge import PROMPTS, Figure, Judged


def judged(iou: float, score: float, mask: np.ndarray | None = None) -> Judged:
    """An object all of whose prompts have the same figures."""
    rle = masks.to_rle(np.ones((4, 4), bool) if mask is None else mask)
    return Judged({prompt: Figure(iou, iou / 2, score) for prompt in PROMPTS}, np.zeros(4, np.float32), rle)


def table(*rows: tuple[str, float, float]) -> pd.DataFrame:
    return pd.DataFrame({"size": size, **figures.row(judged(iou, score))} for size, iou, score in rows)


def test_means_by_size() -> None:
    found = figures.report(table(("small", 0.5, 0.6), ("small", 0.7, 0.7), ("large", 0.9, 0.5)))
    assert list(found["figures"]) == ["all", "small", "large"]
    assert found["figures"]["all"]["things"] == 3 and found["figures"]["small"]["things"] == 2
    assert found["figures"]["small"]["3 clicks"] == pytest.approx(0.6)
    assert found["figures"]["all"]["box"] == pytest.approx(0.7)
    assert found["boundary"]["large"]["box"] == pytest.approx(0.45)
    assert found["figures"]["all"]["score error"] == pytest.approx((0.1 + 0 + 0.4) / 3, abs=1e-4)


def test_expected_calibration_error() -> None:
    things = table(("small", 0, 0))
    answers = (("box", 0.95, 0.85), ("1 click", 0.91, 0.95), ("3 clicks", 0.55, 0.65), ("5 clicks", 0.2, 0.2))
    for prompt, score, iou in answers:
        things[f"{prompt} score"], things[prompt] = score, iou
    bins = figures.bins(things)
    assert bins["from"].tolist() == [0.2, 0.5, 0.9] and bins["answers"].tolist() == [1, 1, 2]
    assert bins["score"].tolist() == pytest.approx([0.2, 0.55, 0.93])
    assert bins["iou"].tolist() == pytest.approx([0.2, 0.65, 0.9])
    # Two answers that are 0.03 off together, one that is 0.1 off, one that is right.
    assert figures.expected_error(bins) == pytest.approx((2 * 0.03 + 0.1 + 0) / 4)


def test_scores_beyond_0_and_1_are_in_the_outermost_bins() -> None:
    bins = figures.bins(table(("small", 0.9, 1.05), ("small", 0.1, -0.2)))
    assert bins["from"].tolist() == [0.0, 0.9] and bins["answers"].tolist() == [4, 4]


def test_what_encodings_keep() -> None:
    """A ring of 96 pixels around a hole of 4: as an outline it is filled, 96 of 100."""
    ring = np.zeros((20, 20), bool)
    ring[5:15, 5:15] = True
    ring[9:11, 9:11] = False
    things = pd.DataFrame([figures.row(judged(1, 1)), figures.row(judged(1, 1, ring))])
    kept = figures.encodings(things).set_index("encoding")
    assert kept["kept"].to_dict() == pytest.approx({"png": 1, "rle": 1, "polygon": (1 + 0.96) / 2})
    assert kept["least"].to_dict() == pytest.approx({"png": 1, "rle": 1, "polygon": 0.96})
    assert kept.loc["rle", "characters"] < kept.loc["png", "characters"]


def test_difference_of_two_models() -> None:
    first = table(("small", 0.5, 0.5), ("large", 0.7, 0.7))
    second = table(("small", 0.6, 0.5), ("large", 0.6, 0.7))
    found = figures.difference(first, second).set_index(["group", "figure"])
    row = found.loc[("all", "box")]
    assert (row["first"], row["second"], row["difference"]) == pytest.approx((0.6, 0.6, 0))
    assert row["spread"] == pytest.approx(0.1)  # of +0.1 and -0.1: deviation 0.1 * sqrt(2), over sqrt(2)
    assert found.loc[("small", "1 click"), "difference"] == pytest.approx(0.1)
    assert found.loc[("large", "box boundary"), "difference"] == pytest.approx(-0.05)
    assert found.loc[("all", "score error"), "second"] == pytest.approx(0.1)
    assert np.isnan(found.loc[("small", "box"), "spread"])  # of one object nothing can be said
