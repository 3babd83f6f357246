"""Metrics of many objects, compared with values that were computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.evaluation import metrics
from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.evaluation.protocol import PROMPTS, MaskQuality, ObjectResult
from sam_endpoint.model import masks


def result(iou: float, score: float, mask: Mask | None = None) -> ObjectResult:
    """Return the result of an object whose masks have the same quality for every prompt."""
    rle = masks.to_rle(np.ones((4, 4), bool) if mask is None else mask)
    return ObjectResult({prompt: MaskQuality(iou, iou / 2, score) for prompt in PROMPTS}, np.zeros(4, np.float32), rle)


def table(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """Return a table of results, with one row per (size, iou, score)."""
    return pd.DataFrame({"size": size, **metrics.object_row(result(iou, score))} for size, iou, score in rows)


def test_summarizes_means_of_all_objects_and_by_size() -> None:
    report = metrics.summarize(table(("small", 0.5, 0.6), ("small", 0.7, 0.7), ("large", 0.9, 0.5)))
    assert list(report["figures"]) == ["all", "small", "large"]
    assert report["figures"]["all"]["things"] == 3 and report["figures"]["small"]["things"] == 2
    assert report["figures"]["small"]["3 clicks"] == pytest.approx(0.6)
    assert report["figures"]["all"]["box"] == pytest.approx(0.7)
    assert report["boundary"]["large"]["box"] == pytest.approx(0.45)
    assert report["figures"]["all"]["score error"] == pytest.approx((0.1 + 0 + 0.4) / 3, abs=1e-4)


def test_expected_calibration_error_weighs_bins_by_their_answers() -> None:
    objects = table(("small", 0, 0))
    answers = (("box", 0.95, 0.85), ("1 click", 0.91, 0.95), ("3 clicks", 0.55, 0.65), ("5 clicks", 0.2, 0.2))
    for prompt, score, iou in answers:
        objects[f"{prompt} score"], objects[prompt] = score, iou
    bins = metrics.calibration_table(objects)
    assert bins["from"].tolist() == [0.2, 0.5, 0.9] and bins["answers"].tolist() == [1, 1, 2]
    assert bins["score"].tolist() == pytest.approx([0.2, 0.55, 0.93])
    assert bins["iou"].tolist() == pytest.approx([0.2, 0.65, 0.9])
    # The bin of two answers is wrong by 0.03, one bin of one answer by 0.1, and the other bin by 0.
    assert metrics.expected_calibration_error(bins) == pytest.approx((2 * 0.03 + 0.1 + 0) / 4)


def test_scores_outside_0_to_1_count_in_the_outermost_bins() -> None:
    bins = metrics.calibration_table(table(("small", 0.9, 1.05), ("small", 0.1, -0.2)))
    assert bins["from"].tolist() == [0.0, 0.9] and bins["answers"].tolist() == [4, 4]


def test_a_polygon_loses_the_hole_of_a_mask_and_png_and_rle_lose_nothing() -> None:
    """The mask is a ring of 96 pixels around a hole of 4 pixels. Its outline encloses 100 pixels."""
    ring = np.zeros((20, 20), bool)
    ring[5:15, 5:15] = True
    ring[9:11, 9:11] = False
    objects = pd.DataFrame([metrics.object_row(result(1, 1)), metrics.object_row(result(1, 1, ring))])
    encodings = metrics.encoding_table(objects).set_index("encoding")
    assert encodings["kept"].to_dict() == pytest.approx({"png": 1, "rle": 1, "polygon": (1 + 0.96) / 2})
    assert encodings["least"].to_dict() == pytest.approx({"png": 1, "rle": 1, "polygon": 0.96})
    assert encodings.loc["rle", "characters"] < encodings.loc["png", "characters"]


def test_the_difference_of_two_models_has_a_spread() -> None:
    first = table(("small", 0.5, 0.5), ("large", 0.7, 0.7))
    second = table(("small", 0.6, 0.5), ("large", 0.6, 0.7))
    differences = metrics.difference_table(first, second).set_index(["group", "figure"])
    row = differences.loc[("all", "box")]
    assert (row["first"], row["second"], row["difference"]) == pytest.approx((0.6, 0.6, 0))
    assert row["spread"] == pytest.approx(0.1)  # of +0.1 and -0.1: deviation 0.1 * sqrt(2), divided by sqrt(2)
    assert differences.loc[("small", "1 click"), "difference"] == pytest.approx(0.1)
    assert differences.loc[("large", "box boundary"), "difference"] == pytest.approx(-0.05)
    assert differences.loc[("all", "score error"), "second"] == pytest.approx(0.1)
    assert np.isnan(differences.loc[("small", "box"), "spread"])  # a single object has no spread
