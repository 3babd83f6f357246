"""A model is taken from wherever it lies, also behind a symbolic link, by every way in."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring import models
from scoring.batch import __main__ as batch
from tests.conftest import ROOT, free_port, run_here, server
from tests.warm import python


@pytest.fixture
def linked(packaged: Path, tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(packaged)
    return tmp_path / "link"


def test_a_folder_behind_a_link_with_settings(linked: Path) -> None:
    model = models.load(str(linked), pred_iou_thresh=0.5, max_prompts=7)
    scorer = model.unwrap_python_model().scorer
    assert (scorer.params.pred_iou_thresh, scorer.max_prompts) == (0.5, 7)


def test_every_command_takes_one(linked: Path, tmp_path: Path) -> None:
    samples = ROOT / "samples"
    for words in (
        ["--input", str(samples / "prompts.csv"), "--output", str(tmp_path / "rows")],
        [
            "annotate",
            "--data",
            str(samples),
            "--output",
            str(tmp_path / "labels"),
            "--params",
            '{"points_per_side": 4}',
        ],
        ["embed", "--images", str(samples), "--store", str(tmp_path / "store")],
    ):
        done = run_here(batch.main, *words, "--model", linked)
        assert done.returncode == 0, done.stderr[-2000:]
    port = free_port()
    command = [python(), "-m", "scoring.online", "--port", str(port), "--model", str(linked)]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)):
        pass
