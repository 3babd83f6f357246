"""Checkpoint files in Meta's format, compared with the models that Meta's code builds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sam_endpoint.model.families import meta
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter
from tests.conftest import ROOT
from tests.model import metas_own
from tests.model.metas_own import SAM, SAM2, SMALL_SAM
from tests.warm import python

SMALL = {32: (*SMALL_SAM[1:3], tuple(SMALL_SAM[3]))}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the description of every size of model that Meta publishes."""
    path = tmp_path_factory.mktemp("meta") / "names.json"
    metas_own.run_metas_code("names", path)
    described: dict[str, Any] = json.loads(path.read_text())
    return described


@pytest.mark.parametrize("size", [*SAM, *SAM2])
def test_every_tensor_of_every_size_has_a_name_in_transformers(sizes: dict[str, Any], size: str) -> None:
    shapes = sizes[size]["tensors"]
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    architecture = meta.detect_architecture(tensors)
    assert architecture is not None
    kind, config = architecture
    with torch.device("meta"):
        model: Any = kind(config)
    state = meta.rename_tensors(tensors, kind)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    # In transformers, one tensor replaces four point embeddings, and the positional embedding exists twice.
    assert len(state) == len(shapes) - (3 if size in SAM2 else 0) + 1
    encoder = model.vision_encoder
    blocks = encoder.backbone.blocks if size in SAM2 else encoder.layers
    assert [[block.attn.num_attention_heads, block.window_size] for block in blocks] == sizes[size]["blocks"]


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_logits_and_scores_equal_those_of_metas_code(
    kind: str, metas_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "SAM_SIZES", SMALL)
    segmenter = Segmenter.load(str(metas_files / f"{kind}.pth"), "cpu")
    theirs = np.load(metas_files / f"{kind}.npz")
    (embedding,) = segmenter.embed([theirs["image"]])
    prompt = Prompt(points=theirs["click"], labels=np.array([1]))
    for multimask in (True, False):
        (actual,) = segmenter.segment(embedding, [prompt], multimask)
        expected = theirs[f"logits {multimask}"]
        assert np.ptp(expected) > 0.02  # the logits are not constant
        assert np.abs(actual.logits.numpy() - expected).max() < 2e-3 * np.abs(expected).max()
        assert actual.scores == pytest.approx(theirs[f"scores {multimask}"], abs=1e-4)


def test_the_command_packages_a_file_in_metas_format(metas_files: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", metas_files / "sam2.pth", "--output", tmp_path / "m", "--no-log"]
    done = subprocess.run(
        [python(), "-m", "sam_endpoint", "package", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    described = (tmp_path / "m" / "MLmodel").read_text()
    assert "base_model: sam2.pth" in described and "family: sam2" in described
    assert Segmenter.load(str(tmp_path / "m" / "artifacts" / "checkpoint"), "cpu").family.name == "sam2"


class Harmful:
    """An object that creates a folder when pickle loads it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def without_iou_token(state: dict[str, Any]) -> Any:
    """Return the tensors without the IoU token."""
    return {name: tensor for name, tensor in state.items() if "iou_token" not in name}


BAD_FILES = [
    (
        without_iou_token,
        "has missing tensors: mask_decoder.iou_token.weight; this project supports SAM vit_b, vit_l, vit_h and SAM 2",
    ),
    (
        lambda state: {**state, "mask_decoder.hf_token.weight": torch.zeros(1)},
        "unexpected tensors: mask_decoder.hf_token.weight",
    ),
    (
        lambda state: {**state, "mask_decoder.iou_token.weight": torch.zeros(1, 7)},
        "of another shape: mask_decoder.iou_token.weight",
    ),
    (lambda state: {"epoch": 3, "model": {**state, "more": Harmful()}}, "holds a pickled object"),
    (lambda state: [1, 2], "is not a dictionary of tensors"),
    (lambda state: {"layer1.weight": torch.zeros(1)}, "is not one of Meta's; this project supports SAM vit_b"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES, ids=[message[:30] for _, message in BAD_FILES])
def test_rejects_other_files_and_saves_nothing(
    metas_files: Path, tmp_path: Path, change: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta, "SAM_SIZES", SMALL)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "checkpoint.pth"
    torch.save(change(torch.load(metas_files / "sam.pth")), file)
    with pytest.raises(ValueError) as caught:
        package.save(file, tmp_path / "out" / "model")
    assert message in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth"]


def test_rejects_files_that_are_not_pytorch_files(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x03\x04" + bytes(100)):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pt' (is not a PyTorch file|holds)"):
            package.save(tmp_path / "a.pt", tmp_path / "model")
    with pytest.raises(ValueError, match="No such file"):
        package.save(tmp_path / "none.pt", tmp_path / "model")
