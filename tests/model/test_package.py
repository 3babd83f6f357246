"""Packaging: a checkpoint becomes an MLflow model that works without this repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file

from sam_endpoint.__main__ import main
from sam_endpoint.model.families.sam_hq import SamHq
from sam_endpoint.model.mlflow import package
from tests import checkpoints
from tests.conftest import ROOT
from tests.warm import python

LOAD_AND_PREDICT = """
import sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(model.input_example)
(mask,) = answer["predictions"][0][0]["mask_per_prediction"]
print("AREA", mask["area"], mask["size"])
assert not [name for name in sys.modules if name.partition(".")[0] in ("sam_endpoint", "model", "scoring")]
packaged = [name for name in sys.modules if name.startswith("sam_endpoint_model_")]
(scorer,) = (sys.modules[name] for name in packaged if name.endswith(".scorer"))
print("FROM", scorer.__file__)
"""


def run_without_repository(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python offline in a folder, in a process from which this repository cannot be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_packaged_model_loads_and_predicts_without_the_repository(packaged: Path, tmp_path: Path) -> None:
    script = tmp_path / "load.py"
    script.write_text(LOAD_AND_PREDICT)
    done = run_without_repository(tmp_path, str(script), str(packaged))
    assert done.returncode == 0, done.stderr[-3000:]
    area = int(done.stdout.split("AREA ")[1].split()[0])
    assert 700 < area < 1400  # the disc of the input example has 1,018 pixels
    assert str(packaged) in done.stdout.split("FROM ")[1]


def test_a_packaged_model_contains_weights_code_metadata_and_pins(packaged: Path) -> None:
    files = {str(path.relative_to(packaged)) for path in packaged.rglob("*") if path.is_file()}
    assert {
        "MLmodel",
        "artifacts/checkpoint/model.safetensors",
        "loader.py",
        "input_example.json",
    } <= files
    (code,) = (packaged / "code").iterdir()
    assert code.name.startswith("sam_endpoint_model_0_2_0_") and (code / "segmenter.py").exists()
    assert not [name for name in files if name.endswith((".pkl", ".bin", ".pt", ".pth"))]
    described = yaml.safe_load((packaged / "MLmodel").read_text())
    metadata = described["metadata"]
    assert (metadata["task"], metadata["family"], metadata["base_model"]) == ("mask-generation", "sam", "sam-tiny")
    assert len(metadata["weights_sha256"]["model.safetensors"]) == 64
    assert metadata["packaged_by"] == "0.2.0"
    pins = [line for line in package.REQUIREMENTS.read_text().splitlines() if "==" in line]
    assert [line for line in (packaged / "requirements.txt").read_text().splitlines() if "==" in line] == pins
    assert "python_model" not in described["flavors"]["python_function"]  # no pickled object


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_packages_a_checkpoint_of_either_family(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    model = mlflow.pyfunc.load_model(str(package.save(folder, tmp_path / "model")))
    assert model.metadata.metadata["family"] == family
    answer = model.predict(model.input_example)
    assert answer["predictions"][0][0]["mask_per_prediction"][0]["size"] == [64, 96]


def test_packages_a_sam2_whose_config_names_a_video_model(sam2_folder: Path, tmp_path: Path) -> None:
    for file in sam2_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "sam2_video"}))
    saved = package.save(tmp_path, tmp_path / "out" / "model")
    assert yaml.safe_load((saved / "MLmodel").read_text())["metadata"]["family"] == "sam2"


def test_the_command_registers_a_model_with_an_alias(packaged: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            python(),
            "-m",
            "sam_endpoint",
            "package",
            "--output",
            str(tmp_path / "m"),
            "--register",
            "cups",
            "--alias",
            "champion",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db",
            "MLFLOW_ARTIFACT_ROOT": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "models:/cups@champion" in done.stdout
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    try:
        model = mlflow.pyfunc.load_model("models:/cups@champion")
        assert len(model.predict(model.input_example)) == 1
        version = mlflow.MlflowClient().get_model_version_by_alias("cups", "champion")
        assert version.version in ("1", 1)
    finally:
        mlflow.set_tracking_uri(before)


def test_saving_again_replaces_the_model_and_nothing_else(sam_folder: Path, tmp_path: Path) -> None:
    package.save(sam_folder, tmp_path / "model")
    package.save(sam_folder, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty and is not an MLflow model"):
        package.save(sam_folder, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_rejects_checkpoints_of_other_kinds_and_unknown_settings(sam_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no transformers model found there"):
        package.save(tmp_path / "none", tmp_path / "a")
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a 'bert'; this project supports sam, sam2"):
        package.save(bert, tmp_path / "b")
    with pytest.raises(ValueError, match="unknown setting 'mask_encodings'"):
        package.save(sam_folder, tmp_path / "c", {"mask_encodings": "rle"})
    assert not any((tmp_path / name).exists() for name in "abc")


class Harmful:
    """An object that creates a folder when pickle loads it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def without_a_token(weights: dict[str, Any], folder: Path) -> None:
    """Save the weights without one tensor."""
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_one_more(weights: dict[str, Any], folder: Path) -> None:
    """Save the weights with an additional tensor."""
    weights["mask_decoder.more.weight"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_shape(weights: dict[str, Any], folder: Path) -> None:
    """Save the weights with a tensor of another shape."""
    weights["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_an_object(weights: dict[str, Any], folder: Path) -> None:
    """Save the weights and a pickled object."""
    torch.save({**weights, "more": Harmful()}, folder / "pytorch_model.bin")


def cut_short(weights: dict[str, Any], folder: Path) -> None:
    """Save the first 1,000 bytes of the weights."""
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


BROKEN = [
    (without_a_token, r"has missing tensors: mask_decoder\.iou_token\.weight; this project supports sam, sam2"),
    (with_one_more, r"has unexpected tensors: mask_decoder\.more\.weight; this project supports sam, sam2"),
    (of_another_shape, r"tensors of another shape: mask_decoder\.iou_token\.weight; this project supports sam, sam2"),
    (with_an_object, "broken' cannot be read: .*; this project supports sam, sam2"),
    (cut_short, "broken' cannot be read: .*; this project supports sam, sam2"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[broken.__name__ for broken, _ in BROKEN])
def test_rejects_a_broken_checkpoint_and_saves_nothing(
    sam_folder: Path, tmp_path: Path, broken: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "broken"
    folder.mkdir()
    broken(load_file(sam_folder / "model.safetensors"), folder)
    (folder / "config.json").write_bytes((sam_folder / "config.json").read_bytes())
    with pytest.raises(ValueError, match=message):
        package.save(folder, tmp_path / "out" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_lists_the_packages_that_a_family_needs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="needs more packages: pip install timm"):
        package.save(tmp_path, tmp_path / "model")


def test_a_models_requirements_include_those_of_its_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoints.save_sam_hq(tmp_path)
    monkeypatch.setattr(SamHq, "requirements", ("timm==1.0.31",))
    saved = package.save(folder, tmp_path / "out" / "model")
    pins = (saved / "requirements.txt").read_text().split()
    assert "timm==1.0.31" in pins and "torch==2.13.0" in pins


def test_the_command_fails_for_a_missing_checkpoint_and_bad_options(tmp_path: Path) -> None:
    words = ["--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "m"), "--no-log"]
    assert main(["package", *words]) == 2
    with pytest.raises(SystemExit):
        main(["package", "--alias", "champion"])


def test_does_not_load_a_model_whose_weights_were_changed(packaged: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(packaged, tmp_path / "model")
    (weights,) = changed.rglob("model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(MlflowException, match="differ from the packaged weights"):
        mlflow.pyfunc.load_model(str(changed))
