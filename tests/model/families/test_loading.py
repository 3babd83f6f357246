"""Loading of checkpoints whose tensors have the names of the model, without transformers' conversions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sam_endpoint.model import families
from sam_endpoint.model.mlflow import package
from tests import checkpoints


@pytest.mark.parametrize("name", ["sam", "sam2", "sam_hq", "sam-tiny", "sam2-tiny"])
def test_loads_the_same_weights_as_transformers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = {"sam-tiny": package.EMBEDDED, "sam2-tiny": package.EMBEDDED_SAM2}
    folder = embedded.get(name) or checkpoints.SAVERS[name](tmp_path)
    family = json.loads((folder / "config.json").read_text())["model_type"]
    expected = families.FAMILIES[family].model_class.from_pretrained(folder).state_dict()
    monkeypatch.setattr(families, "_load_converted", None)
    model = families.load(str(folder)).model
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())
    assert not any(tensor.requires_grad for tensor in model.parameters())


def test_loads_half_precision_as_float32(tmp_path: Path) -> None:
    file = checkpoints.save_sam(tmp_path) / "model.safetensors"
    save_file({key: tensor.half() for key, tensor in load_file(file).items()}, file)
    assert {tensor.dtype for tensor in families.load(str(tmp_path)).model.parameters()} == {torch.float32}


def test_overwriting_the_file_after_loading_does_not_change_the_model(tmp_path: Path) -> None:
    file = checkpoints.save_sam(tmp_path) / "model.safetensors"
    model = families.load(str(tmp_path)).model
    before = model.mask_decoder.iou_token.weight.clone()
    file.write_bytes(bytes(file.stat().st_size))
    assert torch.equal(model.mask_decoder.iou_token.weight, before)
