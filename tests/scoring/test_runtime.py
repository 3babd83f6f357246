"""Opening of packaged models: their places and settings, and models that this version cannot read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.models import Model

from sam_endpoint.__main__ import main
from sam_endpoint.model.errors import BadModel, BadParameter
from sam_endpoint.model.mlflow.package import save
from sam_endpoint.scoring.runtime import STARTERS, open_model
from tests.conftest import ROOT, free_port, run_here, serve_endpoint


@pytest.fixture
def linked_model(packaged: Path, tmp_path: Path) -> Path:
    """Return a symbolic link to the packaged model."""
    (tmp_path / "link").symlink_to(packaged)
    return tmp_path / "link"


def test_opens_a_model_behind_a_link_with_settings(linked_model: Path) -> None:
    model = open_model(linked_model, pred_iou_thresh=0.5, max_prompts=7)
    assert (model.defaults.read({}).pred_iou_thresh, model.engine.max_prompts) == (0.5, 7)


def checkpoint_with(params: object, folder: Path) -> Path:
    """Copy the starter checkpoint, and change the params of its config."""
    copy = shutil.copytree(STARTERS / "sam-tiny", folder / "checkpoint")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "task_specific_params": {"mask-generation": params}}))
    return copy


def test_the_params_of_a_checkpoint_are_defaults_of_its_models(tmp_path: Path) -> None:
    checkpoint = checkpoint_with({"pred_iou_thresh": 0.6, "points_per_side": 5}, tmp_path)
    defaults = open_model(checkpoint).defaults.read({})
    assert (defaults.pred_iou_thresh, defaults.points_per_side, defaults.box_nms_thresh) == (0.6, 5, 0.7)
    assert open_model(checkpoint, points_per_side=6).defaults.read({}).points_per_side == 6
    saved = save(checkpoint, tmp_path / "model", {"pred_iou_thresh": 0.4})
    packaged = open_model(saved).defaults.read({})
    assert (packaged.pred_iou_thresh, packaged.points_per_side) == (0.4, 5)
    schema = Model.load(saved).get_params_schema()
    assert {param.name: param.default for param in schema.params}["points_per_side"] == 5
    assert json.loads((saved / "artifacts" / "checkpoint" / "config.json").read_text())["task_specific_params"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pred_iou_thresh": 7}, "parameter 'pred_iou_thresh': expected a number from 0 to 1, got the number 7"),
        ({"hosts": ["*"]}, "unknown parameter"),
        (["points_per_side"], "expected an object, got a list of 1"),
    ],
)
def test_a_checkpoint_with_wrong_params_is_not_opened(params: object, message: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_with(params, tmp_path)
    for use in (lambda: open_model(checkpoint), lambda: save(checkpoint, tmp_path / "model")):
        with pytest.raises(BadModel, match=message) as caught:
            use()
        assert "task_specific_params of 'mask-generation' in the checkpoint's config.json" in str(caught.value)


def test_every_command_accepts_a_model_behind_a_link(linked_model: Path, tmp_path: Path) -> None:
    samples = ROOT / "samples"
    for words in (
        ["score", "--input", str(samples / "prompts.csv"), "--output", str(tmp_path / "rows")],
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
        done = run_here(main, *words, "--model", linked_model)
        assert done.returncode == 0, done.stderr[-2000:]
    with serve_endpoint(tmp_path / "log", "--model", linked_model):
        pass


def copy_with_changes(packaged: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a packaged model and change the content of its MLmodel file."""
    copy = shutil.copytree(packaged, folder / "model")
    described = yaml.safe_load((copy / "MLmodel").read_text())
    change(described)
    (copy / "MLmodel").write_text(yaml.safe_dump(described))
    return copy


def test_rejects_a_model_of_an_unknown_format_with_its_version(packaged: Path, tmp_path: Path) -> None:
    def set_later_version(described: dict[str, Any]) -> None:
        described["metadata"] |= {"packaged_by": "9.1.0", "format": 7}

    model = copy_with_changes(packaged, tmp_path, set_later_version)
    with pytest.raises(BadModel, match=r"packaged by version 9\.1\.0 in format 7; this version reads format 1"):
        open_model(model)
    done = run_here(main, "serve", "--model", model, "--port", free_port())
    assert done.returncode == 2 and "packaged by version 9.1.0" in done.stderr and "Traceback" not in done.stderr


def test_opens_a_model_without_a_recorded_version(packaged: Path, tmp_path: Path) -> None:
    def remove_version(described: dict[str, Any]) -> None:
        del described["metadata"]["packaged_by"], described["metadata"]["format"]

    opened = open_model(copy_with_changes(packaged, tmp_path, remove_version))
    assert opened.describe()["packaged_by"] == "0.1.0" and opened.engine.family == "sam"


def test_rejects_a_model_of_another_project(packaged: Path, tmp_path: Path) -> None:
    def remove_metadata(described: dict[str, Any]) -> None:
        described["metadata"] = None

    with pytest.raises(BadModel, match="not one packaged by `sam-endpoint package`"):
        open_model(copy_with_changes(packaged, tmp_path, remove_metadata))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "MLmodel").write_text("{[")
    with pytest.raises(BadModel, match="no readable MLmodel file"):
        open_model(tmp_path / "broken")


def test_opening_a_model_does_not_run_its_code(packaged: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(packaged, tmp_path / "model")
    for file in (copy / "loader.py", *(copy / "code").rglob("*.py")):
        file.write_text("raise SystemExit('the code of the model ran')\n")
    assert open_model(copy).describe()["packaged_by"] == "0.2.0"


def test_rejects_a_missing_model(tmp_path: Path) -> None:
    for source in (tmp_path / "none", "models:/nothing@champion"):
        with pytest.raises(BadModel, match="no model can be loaded from"):
            open_model(source)


def test_rejects_unknown_settings(packaged: Path) -> None:
    with pytest.raises(BadParameter, match="unknown setting 'cache_size'"):
        open_model(packaged, cache_size=1)
