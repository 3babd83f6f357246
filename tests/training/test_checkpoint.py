"""The embedded checkpoints: their size, and that they segment what they never saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model import package
from model.segmenter import Segmenter
from training import figures
from training.evaluate import evaluate
from training.ground_truth import Scenes


@pytest.fixture(scope="module", params=[package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_it_is_small(folder: Path) -> None:
    model = Segmenter.load(str(folder), "cpu").family.model
    assert sum(weight.numel() for weight in model.parameters()) <= 8_000_000
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20 * 2**20


def test_the_committed_figures_are_what_it_does(folder: Path) -> None:
    """On the first scenes of the held-out row; the committed figures are of 200."""
    committed = json.loads((folder / "heldout.json").read_text())
    assert committed["scenes"] == 200 and committed["model"] == folder.name
    (judged,), _ = evaluate({folder.name: Segmenter.load(str(folder), "cpu")}, Scenes(24))
    found = figures.report(judged.things)["figures"]["all"]
    for name in ("box", "1 click", "3 clicks"):
        assert found[name] == pytest.approx(committed["figures"]["all"][name], abs=0.06), name
    assert found["score error"] < committed["figures"]["all"]["score error"] + 0.03
