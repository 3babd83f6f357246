"""`sam-endpoint evaluate` on scenes, and on a COCO file with two models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sam_endpoint.evaluation.protocol import PROMPTS
from sam_endpoint.model.mlflow import package
from tests.evaluation.coco_files import evaluate_here, evaluate_logged, write_images, write_json


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Evaluate the starter model on the first three scenes, and return the report."""
    folder = tmp_path_factory.mktemp("scenes")
    done = evaluate_here(folder, "--model", package.EMBEDDED, "--data", "scenes", "--count", 3, "--output", "out.json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return report


@pytest.fixture(scope="module")
def compared(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Evaluate the starter model and a copy with noise on its weights, on three scenes in a COCO file.

    Returns:
        The folder of the results, and the standard output of the command.
    """
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(package.EMBEDDED, folder / "spoilt")
    weights = load_file(folder / "spoilt" / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if weight.ndim > 1 and "position" not in name:
            weights[name] = weight + 0.2 * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / "spoilt" / "model.safetensors", metadata={"format": "pt"})
    write_json(folder, "data.json", write_images(folder, 3))
    models = ("--model", packaged, "--model", "spoilt")
    done = evaluate_logged(folder, *models, "--data", "data.json", "--output", "out/two.json", "--pictures", "out")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_metrics_of_an_object_do_not_depend_on_the_source(
    scenes: dict[str, Any], compared: tuple[Path, str]
) -> None:
    assert scenes["model"] == "sam-tiny" and scenes["scenes"] == 3
    first = json.loads((compared[0] / "out" / "two.json").read_text())["models"][0]
    assert first["model"] == "model" and first["images"] == 3 and first["data"] == "data.json"
    for part in ("figures", "boundary"):
        assert first[part]["all"] == scenes[part]["all"], part
    assert first["calibration"] == scenes["calibration"] and first["encodings"] == scenes["encodings"]
    # An object is small below 1 % of a scene, but below 32 x 32 pixels of an image in a COCO file.
    assert first["figures"]["small"]["things"] != scenes["figures"]["small"]["things"]
    assert scenes["problems"] == first["problems"] == {}


def test_more_clicks_give_better_masks_and_png_and_rle_lose_nothing(scenes: dict[str, Any]) -> None:
    figures = scenes["figures"]["all"]
    assert figures["1 click, oracle"] > figures["1 click"] > 0.6
    assert figures["5 clicks"] > figures["1 click"] and figures["box"] > 0.75
    assert scenes["calibration"]["mean absolute error"] == figures["score error"] < 0.15
    assert sum(row["answers"] for row in scenes["calibration"]["bins"]) == 4 * figures["things"]
    iou_kept = {row["encoding"]: row["kept"] for row in scenes["encodings"]}
    assert iou_kept["png"] == iou_kept["rle"] == 1 > iou_kept["polygon"] > 0.9


def test_a_comparison_reports_prints_and_draws_the_difference_of_two_models(compared: tuple[Path, str]) -> None:
    folder, printed = compared
    report = json.loads((folder / "out" / "two.json").read_text())
    first, second = (model["figures"] for model in report["models"])
    for row in report["difference"]:
        assert row["difference"] == pytest.approx(row["second"] - row["first"], abs=1e-9)
        if row["figure"] in PROMPTS:
            assert row["first"] == pytest.approx(first[row["group"]][row["figure"]], abs=1e-4)
            assert row["second"] == pytest.approx(second[row["group"]][row["figure"]], abs=1e-4)
    (box,) = [row for row in report["difference"] if (row["group"], row["figure"]) == ("all", "box")]
    assert box["difference"] < -2 * box["spread"] < 0  # the model with noise is worse, by more than chance
    assert printed.splitlines()[3].split() == ["model", "spoilt", "difference", "+-"]
    line = f"{box['first']:18.3f}{box['second']:18.3f}{box['difference']:+12.3f}{box['spread']:8.3f}"
    assert f"  {'box':24}{line}" in printed.splitlines()
    for name in ("curves.png", "worst-1.png", "worst-2.png", "typical-1.png", "typical-2.png"):
        assert np.asarray(Image.open(folder / "out" / name).convert("RGB")).std() > 10, name


def test_each_model_has_a_run_with_metrics_tables_and_images(compared: tuple[Path, str]) -> None:
    folder, printed = compared
    reports = json.loads((folder / "out" / "two.json").read_text())["models"]
    client = mlflow.MlflowClient(f"sqlite:///{folder}/runs.db")
    runs = sorted(client.search_runs(["0"]), key=lambda run: run.info.start_time)
    assert [run.info.run_name for run in runs] == ["evaluate model", "evaluate spoilt"]
    assert all(run.info.status == "FINISHED" and run.info.run_id in printed for run in runs)
    for run, report in zip(runs, reports, strict=True):
        assert run.data.params["data"] == "data.json" and run.data.params["images"] == "3"
        for size, figures in report["figures"].items():
            for name, value in figures.items():
                assert run.data.metrics[f"iou/{size}/{name.replace(',', '')}"] == value
        assert run.data.metrics["boundary/all/box"] == report["boundary"]["all"]["box"]
        assert run.data.metrics["calibration/expected error"] == report["calibration"]["expected error"]
        assert run.data.metrics["encoding/polygon kept"] < 1
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
        pictures = {"curves.png", "worst.png", "typical.png"}
        assert names >= {"report.json", "things.json", "calibration.json", "encodings.json"} | pictures
        # MLflow writes artifacts into the working directory of the command.
        artifacts = folder / "mlruns" / "0" / run.info.run_id / "artifacts"
        assert json.loads((artifacts / "report.json").read_text()) == report
        content = json.loads((artifacts / "things.json").read_text())
        table = pd.DataFrame(content["data"], columns=content["columns"])
        assert len(table) == report["figures"]["all"]["things"]
        assert table["box"].mean() == pytest.approx(report["figures"]["all"]["box"], abs=1e-4)
    assert runs[1].data.tags["compared_with"] == runs[0].info.run_id
    assert (folder / "mlruns" / "0" / runs[1].info.run_id / "artifacts" / "difference.json").exists()
