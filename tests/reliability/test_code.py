"""Test that code inside a checkpoint or model never runs, even if its configuration asks for it and the user agrees."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.utils.hub import HF_MODULES_CACHE

from sam_endpoint.model import families
from sam_endpoint.model.errors import BadModel, EndpointError
from sam_endpoint.scoring.batch import detectors
from sam_endpoint.scoring.runtime import open_model
from tests.scoring.batch.test_detectors import detr, grounding_dino

AUTO_MAP = {
    name: "hostile.Hostile"
    for name in (
        "AutoConfig", "AutoModel", "AutoModelForMaskGeneration", "AutoModelForObjectDetection", "AutoImageProcessor",
        "AutoProcessor", "AutoTokenizer", "AutoModelForZeroShotObjectDetection", "AutoFeatureExtractor",
    )
}  # fmt: skip


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path of a file that hostile code creates when it runs. The test answers all questions with yes."""
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    yield tmp_path / "ran"
    shutil.rmtree(Path(HF_MODULES_CACHE) / "transformers_modules" / "hostile", ignore_errors=True)


def hostile(folder: Path, ran: Path, **changes: Any) -> Path:
    """Put hostile code into a checkpoint, under every name that transformers could run. Return the folder."""
    code = f"open({str(ran)!r}, 'w').close()\nfrom transformers import SamConfig as Hostile\n"
    for name in ("hostile", "configuration", "modeling", "__init__", "setup", "conftest", "sitecustomize"):
        (folder / f"{name}.py").write_text(code)
    for name in ("config", "preprocessor_config", "processor_config", "tokenizer_config"):
        file = folder / f"{name}.json"
        content = json.loads(file.read_text()) if file.exists() else {}
        if content or name == "config":
            file.write_text(json.dumps({**content, "auto_map": AUTO_MAP, "trust_remote_code": True, **changes}))
    return folder


@pytest.mark.parametrize("changes", [{}, {"model_type": "hostile"}, {"architectures": ["Hostile"]}])
def test_a_checkpoints_code_does_not_run(sam_folder: Path, tmp_path: Path, ran: Path, changes: dict[str, Any]) -> None:
    folder = hostile(Path(shutil.copytree(sam_folder, tmp_path / "checkpoint")), ran, **changes)
    if "model_type" in changes:
        with pytest.raises(ValueError, match="no transformers model found"):
            families.load(str(folder))
        with pytest.raises(BadModel):
            open_model(str(folder))
    else:
        assert families.load(str(folder)).name == "sam"
    assert not ran.exists()


@pytest.mark.parametrize("save", [detr, grounding_dino])
@pytest.mark.parametrize("changes", [{}, {"model_type": "hostile"}, {"image_processor_type": "Hostile"}])
def test_a_detectors_code_does_not_run(save: Any, tmp_path: Path, ran: Path, changes: dict[str, Any]) -> None:
    save(tmp_path / "detector")
    folder = hostile(tmp_path / "detector", ran, **changes)
    rules = detectors.BoxFilter(classes=("cup",))
    with contextlib.suppress(EndpointError, ValueError):
        detectors.load(str(folder), rules, "cpu")(np.zeros((32, 48, 3), np.uint8))
    assert not ran.exists()


def test_a_models_code_does_not_run(packaged: Path, tmp_path: Path, ran: Path) -> None:
    """The endpoint and batch jobs read an MLflow model as data; MLflow's own server runs the code inside it."""
    model = Path(shutil.copytree(packaged, tmp_path / "model"))
    hostile(model / "artifacts" / "checkpoint", ran)
    for folder in (model, *(folder for folder in model.rglob("*") if folder.is_dir())):
        if folder.name != "checkpoint":
            for file in ("hostile.py", "sitecustomize.py", "__init__.py", *(file.name for file in folder.glob("*.py"))):
                (folder / file).write_text(f"open({str(ran)!r}, 'w').close()\n")
    with contextlib.suppress(BadModel):
        assert open_model(str(model)).engine.family == "sam"
    assert not ran.exists()
