"""The command: a better model is registered, promoted and served; one trained on other images' masks is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from PIL import Image

from sam_endpoint.scoring.runtime import open_model
from tests.conftest import ROOT
from tests.training.finetune import coin_images, kills
from tests.warm import python

QUICK = ("--batch-images", 4, "--batch-masks", 2, "--validate-every", 4)


def finetune(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `sam-endpoint finetune` in a folder, with MLflow runs in a store of that folder."""
    words = [python(), "-m", "sam_endpoint", "finetune", *map(str, arguments)]
    variables = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs.db"}
    return subprocess.run(words, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a model was fine-tuned and promoted, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    train, held_out = coin_images.write(folder / "data", 8, 5)
    done = finetune(
        folder, "--model", packaged, "--data", train, "--val", held_out, "--steps", 8, *QUICK,
        "--warmup", 4, "--register", "sam", "--alias", "challenger", "--promote", "champion", "--guard", held_out,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_better_model_is_promoted_with_its_lineage(trained: tuple[Path, str], packaged: Path) -> None:
    folder, printed = trained
    for text in (
        "encoding    8 images, about",
        "better",
        "models:/sam@challenger",
        "promoted    models:/sam@champion",
    ):
        assert text in printed
    client = mlflow.MlflowClient(f"sqlite:///{folder}/runs.db")
    version = client.get_model_version_by_alias("sam", "champion")
    assert version.version == client.get_model_version_by_alias("sam", "challenger").version
    described = yaml.safe_load((folder / "build" / "finetuned" / "MLmodel").read_text())["metadata"]
    assert described["base_model"] == "sam-tiny"
    base = open_model(str(packaged))
    assert described["finetuned_from"]["weights"] == base.weights != described["weights_sha256"]
    assert described["finetuning"]["mode"] == "decoder" and described["finetuning"]["images"] == 7
    run = client.get_run(str(version.run_id))
    assert run.data.params["steps"] == "8" and run.data.tags["verdict"] == "better"
    assert run.data.tags["data_sha256"] == described["finetuning"]["data_sha256"]
    assert run.data.metrics["difference/1 click/lower"] > 0
    assert [point.step for point in client.get_metric_history(run.info.run_id, "figure")] == [0, 4, 8]
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"gate.json", "training.png", "comparison.png", "changes.png", "things.json"} <= logged


def test_the_report_and_the_pictures_are_written(trained: tuple[Path, str]) -> None:
    work = trained[0] / "build" / "finetuned.work"
    report = json.loads((work / "gate.json").read_text())
    assert report["verdict"] == "better" and len(report["guards"]) == 1
    difference = report["held-out"]["difference"]["1 click"]
    assert 0 < difference["lower"] < difference["mean"] < difference["upper"]
    for name in ("training", "comparison", "changes"):
        assert min(Image.open(work / f"{name}.png").size) > 100


def test_the_same_command_again_trains_and_encodes_nothing(trained: tuple[Path, str], packaged: Path) -> None:
    folder = trained[0]
    weights = folder / "build" / "finetuned" / "artifacts" / "checkpoint" / "model.safetensors"
    before = weights.read_bytes()
    done = finetune(
        folder, "--model", packaged, "--data", "data/train.json", "--val", "data/held-out.json", "--steps", 8, *QUICK,
        "--warmup", 4, "--no-log",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 encoded now" in done.stdout and "resumed     at step 8 of 8" in done.stdout
    assert weights.read_bytes() == before


def test_masks_of_other_images_are_refused(packaged: Path, tmp_path: Path) -> None:
    train, held_out = coin_images.write(tmp_path / "data", 6, 5, shuffled=True)
    done = finetune(
        tmp_path, "--model", packaged, "--data", train, "--val", held_out, "--epochs", 6, *QUICK, "--rate", 1e-3,
        "--warmup", 1, "--stop-share", 0, "--register", "sam", "--promote", "champion",
    )  # fmt: skip
    assert done.returncode == 3, done.stdout + done.stderr
    assert "worse" in done.stdout and "refused     models:/sam@champion stays as it is" in done.stdout
    client: Any = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    assert dict(client.get_registered_model("sam").aliases) == {}


def test_a_killed_training_ends_with_the_same_weights(sam_folder: Path, tmp_path: Path) -> None:
    first, second, resumed = kills.run(sam_folder, tmp_path, steps=30, kills=2, python=python())
    assert first == second
    assert resumed


def test_an_output_of_other_files_is_refused_before_the_training(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").write_text("mine")
    done = finetune(tmp_path, "--model", packaged, "--data", "no.json", "--output", "notes")
    assert done.returncode == 2 and "is not an MLflow model" in done.stderr
    done = finetune(tmp_path, "--model", packaged, "--data", "no.json", "--no-log")
    assert done.returncode == 2 and "--data 'no.json' does not exist" in done.stderr
