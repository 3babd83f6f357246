"""Tests of the command: it promotes a better model, and refuses a model that was trained with wrong masks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import mlflow
import pytest
import yaml
from PIL import Image

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.runtime import open_model
from sam_endpoint.training.finetune import data, gate
from sam_endpoint.training.finetune import finetune as finetune_module
from sam_endpoint.training.finetune.finetune import Training
from sam_endpoint.training.finetune.options import FinetuneOptions, Plan
from tests.conftest import ROOT
from tests.detectors import detr
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
    """Fine-tune and promote a model. Return the folder and the output of the command."""
    folder = tmp_path_factory.mktemp("trained")
    train, held_out = coin_images.write(folder / "data", 7, 6, faint=True)
    guard = shutil.copy(held_out, folder / "data" / "guard (1).json")
    done = finetune(
        folder, "--model", packaged, "--data", train, "--val", held_out, "--steps", 8, *QUICK,
        "--guard", guard, "--warmup", 4, "--register", "sam", "--alias", "challenger", "--promote", "champion",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_better_model_is_promoted_with_its_lineage(trained: tuple[Path, str], packaged: Path) -> None:
    folder, printed = trained
    for text in (
        "encoding    7 images, about",
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
    assert described["finetuning"]["mode"] == "decoder" and described["finetuning"]["images"] == 6
    run = client.get_run(str(version.run_id))
    assert run.data.params["steps"] == "8" and run.data.tags["verdict"] == "better"
    assert run.data.tags["data_sha256"] == described["finetuning"]["data_sha256"]
    assert run.data.metrics["difference/1 click/lower"] > 0
    assert run.data.metrics["guard guard 1.json/difference/1 click/lower"] > 0  # MLflow rejects parentheses
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


def train_here(options: FinetuneOptions) -> tuple[Segmenter, Training]:
    """Train in this process, without packaging and gate."""
    base = open_model(options.model)
    training = finetune_module._train(options, base, data.prepare(options))
    return base.engine.segmenter, training


def test_repeating_a_finished_training_does_not_train_or_encode_again(
    trained: tuple[Path, str], packaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    plan = Plan(steps=8, images=4, masks=2, validate_every=4, warmup=4)
    train, held_out = (str(folder / "data" / f"{name}.json") for name in ("train", "held-out"))
    output = folder / "build" / "finetuned"
    segmenter, _ = train_here(FinetuneOptions(str(packaged), train, val=held_out, output=output, plan=plan))
    printed = capsys.readouterr().out
    assert "0 encoded now" in printed and "resumed     at step 8 of 8" in printed
    assert segmenter.family.fingerprint() == open_model(str(output)).engine.fingerprint


def test_masks_of_other_images_make_the_model_worse_and_are_refused(tmp_path: Path) -> None:
    train, held_out = coin_images.write(tmp_path / "data", 6, 5, shuffled=True)
    plan = Plan(images=4, masks=2, rate=2e-3, warmup=1, stop_share=0)
    options = FinetuneOptions(
        str(package.EMBEDDED), str(train), val=str(held_out), output=tmp_path / "out", plan=plan, epochs=6
    )
    candidate, training = train_here(options)
    assert (training.plan.steps, training.watched) == (9, 0)
    base = open_model(options.model).engine.segmenter
    comparison = gate.compare(base, candidate, CocoDataset(held_out), "held-out", 1)
    verdict = gate.judge(comparison, [], "1 click", 0.0, 0.01)
    assert verdict.name == "worse" and not verdict.promotes


def test_a_killed_training_ends_with_the_same_weights(sam_folder: Path, tmp_path: Path) -> None:
    first, second, resumed = kills.run(sam_folder, tmp_path, steps=20, kills=2, python=python())
    assert first == second
    assert resumed


def test_an_output_folder_with_other_files_is_refused_before_the_training(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "important.txt").write_text("mine")
    done = finetune(tmp_path, "--model", packaged, "--data", "no.json", "--output", "notes")
    assert done.returncode == 2 and "is not an MLflow model" in done.stderr
    done = finetune(tmp_path, "--model", packaged, "--data", "no.json", "--no-log")
    assert done.returncode == 2 and "--data 'no.json' does not exist" in done.stderr


def test_an_output_that_would_replace_the_base_is_refused(packaged: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(packaged, base)
    for output in ("base", base):
        done = finetune(tmp_path, "--model", "base", "--data", "no.json", "--output", output, "--no-log")
        assert done.returncode == 2 and f"--output '{output}' would replace --model" in done.stderr
    assert open_model(base).weights == open_model(packaged).weights


def test_a_packaged_detector_is_kept(tmp_path: Path) -> None:
    detr(tmp_path / "detr")
    package.save(package.EMBEDDED, tmp_path / "base", detector=tmp_path / "detr")
    train, held_out = coin_images.write(tmp_path / "data", 2, 2)
    data_of = ("--data", train, "--val", held_out)
    done = finetune(tmp_path, "--model", "base", *data_of, "--output", "new", "--steps", 1, *QUICK, "--no-log")
    assert done.returncode == 0, done.stderr
    base, new = (yaml.safe_load((tmp_path / name / "MLmodel").read_text())["metadata"] for name in ("base", "new"))
    assert new["detector"] == base["detector"] == "detr" and new["capabilities"] == base["capabilities"]
    assert new["capabilities"]["text"] and open_model(tmp_path / "new").engine.concepts
