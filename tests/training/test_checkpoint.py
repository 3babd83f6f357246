"""The embedded checkpoint: its size, and that it segments what it never saw."""

from __future__ import annotations

import json

import pytest

from model import package
from model.segmenter import Segmenter
from training import figures
from training.evaluate import evaluate
from training.ground_truth import Scenes

HELD_OUT = package.EMBEDDED / "heldout.json"


def test_it_is_small(tiny: Segmenter) -> None:
    assert sum(weight.numel() for weight in tiny.family.model.parameters()) <= 8_000_000
    assert sum(file.stat().st_size for file in package.EMBEDDED.iterdir()) <= 20 * 2**20


def test_the_committed_figures_are_what_it_does(tiny: Segmenter) -> None:
    """On the first scenes of the held-out row; the committed figures are of 200."""
    committed = json.loads(HELD_OUT.read_text())
    assert committed["scenes"] == 200
    (judged,), _ = evaluate({"tiny": tiny}, Scenes(24))
    found = figures.report(judged.things)["figures"]["all"]
    for name in ("box", "1 click", "3 clicks"):
        assert found[name] == pytest.approx(committed["figures"]["all"][name], abs=0.06), name
    assert found["score error"] < committed["figures"]["all"]["score error"] + 0.03
