"""The starter checkpoints: their size, and the accuracy of their masks on held-out scenes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sam_endpoint.evaluation import metrics
from sam_endpoint.evaluation.evaluate import evaluate
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter


@pytest.fixture(scope="module", params=[package.EMBEDDED, package.EMBEDDED_SAM2], ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a starter checkpoint."""
    checkpoint: Path = request.param
    return checkpoint


def test_an_embedded_checkpoint_has_at_most_8_million_weights_in_20_mib(folder: Path) -> None:
    model = Segmenter.load(str(folder), "cpu").family.model
    assert sum(weight.numel() for weight in model.parameters()) <= 8_000_000
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20 * 2**20


def test_an_evaluation_reproduces_the_committed_figures(folder: Path) -> None:
    """Evaluates the first 24 held-out scenes; the committed figures are of 200 scenes."""
    committed = json.loads((folder / "heldout.json").read_text())
    assert committed["scenes"] == 200 and committed["model"] == folder.name
    (results,), _ = evaluate({folder.name: Segmenter.load(str(folder), "cpu")}, SceneDataset(24))
    figures = metrics.summarize(results.objects)["figures"]["all"]
    for name in ("box", "1 click", "3 clicks"):
        assert figures[name] == pytest.approx(committed["figures"]["all"][name], abs=0.06), name
    assert figures["score error"] < committed["figures"]["all"]["score error"] + 0.03
