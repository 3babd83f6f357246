"""Tests of the gate: the coverage of its interval, and its verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.evaluation.protocol import PROMPTS
from sam_endpoint.training.finetune.gate import Comparison, Interval, judge, paired_interval

EQUAL = Interval(0.0, -0.01, 0.01)


def compared(click: Interval = EQUAL, box: Interval = EQUAL, images: int = 10) -> Comparison:
    all_intervals = {**dict.fromkeys(PROMPTS, EQUAL), "1 click": click, "box": box}
    return Comparison("data", (pd.DataFrame(), pd.DataFrame()), ({}, {}), all_intervals, images, Problems())


@pytest.mark.parametrize(
    ("held_out", "margin", "verdict"),
    [
        (compared(Interval(0.05, 0.02, 0.08)), 0.0, "better"),
        (compared(Interval(0.05, 0.02, 0.08)), 0.02, "equal"),
        (compared(Interval(0.05, -0.01, 0.08)), 0.0, "equal"),
        (compared(), 0.0, "equal"),
        (compared(Interval(-0.05, -0.08, -0.02)), 0.0, "worse"),
        (compared(Interval(0.05, 0.02, 0.08), Interval(-0.02, -0.03, 0.01)), 0.0, "worse"),
        (compared(Interval(0.05, 0.02, 0.08), Interval(-0.005, -0.01, -0.001)), 0.0, "better"),
        (compared(Interval(0.05, 0.02, 0.08), images=4), 0.0, "equal"),
    ],
)
def test_the_verdict(held_out: Comparison, margin: float, verdict: str) -> None:
    judged = judge(held_out, [], "1 click", margin, tolerance=0.01)
    assert (judged.name, judged.promotes) == (verdict, verdict == "better")
    assert judged.reasons


@pytest.mark.parametrize("interval", [Interval(-0.02, -0.05, 0.01), Interval(-0.002, -0.003, -0.001)])
def test_the_verdict_is_worse_if_a_guard_gets_worse(interval: Interval) -> None:
    better = compared(Interval(0.05, 0.02, 0.08))
    assert judge(better, [compared()], "1 click", 0.0, 0.01).promotes
    judged = judge(better, [compared(), compared(box=interval)], "1 click", 0.0, 0.01)
    assert judged.name == "worse" and "guard data, box" in judged.reasons[0]


def test_the_interval_covers_the_true_mean_as_often_as_its_confidence_level() -> None:
    """The test has few images, and the objects of each image are alike."""
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        effects = rng.normal(0.1, 0.2, 8)
        owners = np.repeat(np.arange(8), 4)
        interval = paired_interval(effects[owners] + rng.normal(0, 0.05, 32), owners, trial, resamples=1000)
        assert interval.lower <= interval.mean <= interval.upper
        covered += interval.lower <= 0.1 <= interval.upper
    assert covered / 300 > 0.9


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    differences, owners = rng.normal(size=50), rng.integers(0, 9, 50)
    first, again, other = (paired_interval(differences, owners, seed, 500) for seed in (1, 1, 2))
    assert first == again != other


def test_the_bounds_of_the_interval_of_a_single_image_equal_its_mean() -> None:
    interval = paired_interval(np.array([0.1, 0.3]), np.array(["a", "a"]), 1)
    assert interval.lower == pytest.approx(interval.mean) == pytest.approx(interval.upper)


def test_importing_the_options_imports_nothing_heavy() -> None:
    text = (Path(__file__).parents[3] / "training" / "finetune" / "options.py").read_text()
    assert not {"torch", "numpy", "mlflow", "pandas"} & {
        line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
