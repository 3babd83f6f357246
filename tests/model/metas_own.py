"""Models that Meta's code builds: their tensors, and the results that they compute.

This module runs as a process of its own, because it replaces packages that are missing here by mocks.

Usage:
    python -m tests.model.metas_own names FILE
    python -m tests.model.metas_own answers KIND FOLDER
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import yaml

from tests.checkpoints import randomize
from tests.warm import python

# Meta's code imports these packages for resizing, command lines and downloads. A model needs none of them.
ABSENT: tuple[str, ...] = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms")
ABSENT += ("torchvision.transforms.functional", "hydra", "hydra.core", "hydra.core.global_hydra", "hydra.utils")
ABSENT += ("iopath", "iopath.common", "iopath.common.file_io", "omegaconf")
SAM = {"vit_b": (768, 12, 12, [2, 5, 8, 11]), "vit_l": (1024, 24, 16, [5, 11, 17, 23])}
SAM |= {"vit_h": (1280, 32, 16, [7, 15, 23, 31])}
SMALL_SAM = (32, 2, 2, [1])
SAM2 = [f"{version}/{version}_hiera_{size}" for version in ("sam2", "sam2.1") for size in ("t", "s", "b+", "l")]


def run_metas_code(*arguments: object) -> None:
    """Run this module as a process with the given arguments."""
    command = [python(), "-m", "tests.model.metas_own", *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def build_sam(channels: int, layers: int, heads: int, global_layers: list[int]) -> Any:
    """Build a SAM with Meta's code."""
    return importlib.import_module("segment_anything.build_sam")._build_sam(channels, layers, heads, global_layers)


def build_sam2(name: str) -> Any:
    """Build the SAM 2 of a configuration file, with the settings of Meta's builder for prediction."""
    package: ModuleType = importlib.import_module("sam2")
    text = (Path(package.__path__[0]) / "configs" / f"{name}.yaml").read_text()
    config = yaml.safe_load(text.replace("1e-6", "1.0e-6"))["model"]  # PyYAML reads 1e-6 as text
    decoder = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return instantiate({**config, "sam_mask_decoder_extra_args": decoder})


def instantiate(config: Any) -> Any:
    """Return the object that a nested configuration with `_target_` names describes."""
    if isinstance(config, list):
        return [instantiate(item) for item in config]
    if not isinstance(config, dict):
        return config
    parts = {name: instantiate(value) for name, value in config.items() if name != "_target_"}
    if "_target_" not in config:
        return parts
    module, _, name = config["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**parts)


def describe_all_sizes() -> dict[str, Any]:
    """Return the shapes of all tensors by name, and the heads and window of each block, for every size of model."""
    descriptions = {}
    for name, size in SAM.items():
        with torch.device("meta"):
            model = build_sam(*size)
        descriptions[name] = describe(model, model.image_encoder.blocks)
    for name in SAM2:
        model = build_sam2(name)
        descriptions[name] = describe(model, model.image_encoder.trunk.blocks)
    return descriptions


def describe(model: Any, blocks: Any) -> dict[str, Any]:
    """Return the shapes of a model's tensors by name, and the number of heads and the window size of each block."""
    return {
        "tensors": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "blocks": [[block.attn.num_heads, block.window_size] for block in blocks],
    }


def write_results(kind: str, folder: Path) -> None:
    """Write a model with random weights as a file in Meta's format, and the model's results for a click on an image.

    Args:
        kind: `sam` or `sam2`.
        folder: folder for `KIND.pth`, the checkpoint, and `KIND.npz`, the image, the click and the results.
    """
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((64, 64, 1))).astype(np.uint8)
    click, label = torch.tensor([[[300.0, 410.0]]]), torch.tensor([[1]])
    model = build_sam(*SMALL_SAM) if kind == "sam" else build_sam2("sam2.1/sam2.1_hiera_t")
    randomize(model.eval(), 7)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = ((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std)[None]
    with torch.no_grad():
        if kind == "sam":
            encoder, decoder, options = model.prompt_encoder, model.mask_decoder, {}
            embedding = model.image_encoder(pixels)
        else:
            encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
            _, features, _, sizes = model._prepare_backbone_features(model.forward_image(pixels))
            features[-1] = features[-1] + model.no_mem_embed
            *high, embedding = (
                part.permute(1, 2, 0).reshape(1, -1, *size) for part, size in zip(features, sizes, strict=True)
            )
            options = {"repeat_image": False, "high_res_features": high}
        sparse, dense = encoder(points=(click, label), boxes=None, masks=None)
        results: dict[str, Any] = {}
        for multimask in (True, False):
            logits, scores, *_ = decoder(
                image_embeddings=embedding,
                image_pe=encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
                **options,
            )
            results |= {f"logits {multimask}": logits[0].numpy(), f"scores {multimask}": scores[0].numpy()}
    state = model.state_dict()
    torch.save(state if kind == "sam" else {"model": state}, folder / f"{kind}.pth")
    np.savez(folder / f"{kind}.npz", image=image, click=click[0].numpy(), **results)


if __name__ == "__main__":
    sys.path.append(str(Path(sys.prefix) / "reference"))
    for absent in ABSENT:
        sys.modules[absent] = MagicMock()
    if sys.argv[1] == "names":
        Path(sys.argv[2]).write_text(json.dumps(describe_all_sizes()))
    else:
        write_results(sys.argv[2], Path(sys.argv[3]))
