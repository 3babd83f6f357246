"""Meta's own models, built by Meta's own code in a process of its own: what is in them, and what they answer.

python -m tests.model.metas_own names names.json
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

# Imported there for resizing, command lines and downloads, none of which a model needs.
ABSENT: tuple[str, ...] = ("torchvision", "torchvision.ops", "torchvision.ops.boxes", "torchvision.transforms")
ABSENT += ("torchvision.transforms.functional", "hydra", "hydra.core", "hydra.core.global_hydra", "hydra.utils")
ABSENT += ("iopath", "iopath.common", "iopath.common.file_io", "omegaconf")
SAM = {"vit_b": (768, 12, 12, [2, 5, 8, 11]), "vit_l": (1024, 24, 16, [5, 11, 17, 23])}
SAM |= {"vit_h": (1280, 32, 16, [7, 15, 23, 31])}
SMALL_SAM = (32, 2, 2, [1])
SAM2 = [f"{version}/{version}_hiera_{size}" for version in ("sam2", "sam2.1") for size in ("t", "s", "b+", "l")]


def run(*arguments: object) -> None:
    """This file as a process: what it puts in place of missing packages must not reach the tests' own."""
    command = [python(), "-m", "tests.model.metas_own", *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def sam(channels: int, layers: int, heads: int, global_layers: list[int]) -> Any:
    return importlib.import_module("segment_anything.build_sam")._build_sam(channels, layers, heads, global_layers)


def sam2(name: str) -> Any:
    package: ModuleType = importlib.import_module("sam2")
    text = (Path(package.__path__[0]) / "configs" / f"{name}.yaml").read_text()
    config = yaml.safe_load(text.replace("1e-6", "1.0e-6"))["model"]  # the former is text to PyYAML
    # What Meta's builder sets for prediction.
    decoder = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return built({**config, "sam_mask_decoder_extra_args": decoder})


def built(config: Any) -> Any:
    """The object that a nested description with `_target_` names stands for."""
    if isinstance(config, list):
        return [built(one) for one in config]
    if not isinstance(config, dict):
        return config
    parts = {name: built(value) for name, value in config.items() if name != "_target_"}
    if "_target_" not in config:
        return parts
    module, _, name = config["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**parts)


def names() -> dict[str, Any]:
    """Of every size: each tensor's shape by name, and each block's heads and window."""
    found = {}
    for name, size in SAM.items():
        with torch.device("meta"):
            model = sam(*size)
        found[name] = described(model, model.image_encoder.blocks)
    for name in SAM2:
        model = sam2(name)
        found[name] = described(model, model.image_encoder.trunk.blocks)
    return found


def described(model: Any, blocks: Any) -> dict[str, Any]:
    return {
        "tensors": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "blocks": [[block.attn.num_heads, block.window_size] for block in blocks],
    }


def answers(kind: str, folder: Path) -> None:
    """Writes a drawn model as Meta publishes it, and what it answers to one click on one image, to be judged."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (16, 16, 3)), np.ones((64, 64, 1))).astype(np.uint8)
    click, label = torch.tensor([[[300.0, 410.0]]]), torch.tensor([[1]])
    model = sam(*SMALL_SAM) if kind == "sam" else sam2("sam2.1/sam2.1_hiera_t")
    randomize(model.eval(), 7)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    pixels = ((torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std)[None]
    with torch.no_grad():
        if kind == "sam":
            encoder, decoder, fine = model.prompt_encoder, model.mask_decoder, {}
            embedding = model.image_encoder(pixels)
        else:
            encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
            _, features, _, sizes = model._prepare_backbone_features(model.forward_image(pixels))
            features[-1] = features[-1] + model.no_mem_embed
            *high, embedding = (
                part.permute(1, 2, 0).reshape(1, -1, *size) for part, size in zip(features, sizes, strict=True)
            )
            fine = {"repeat_image": False, "high_res_features": high}
        sparse, dense = encoder(points=(click, label), boxes=None, masks=None)
        found: dict[str, Any] = {}
        for multimask in (True, False):
            logits, scores, *_ = decoder(
                image_embeddings=embedding,
                image_pe=encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
                **fine,
            )
            found |= {f"logits {multimask}": logits[0].numpy(), f"scores {multimask}": scores[0].numpy()}
    state = model.state_dict()
    torch.save(state if kind == "sam" else {"model": state}, folder / f"{kind}.pth")
    np.savez(folder / f"{kind}.npz", image=image, click=click[0].numpy(), **found)


if __name__ == "__main__":
    sys.path.append(str(Path(sys.prefix) / "reference"))
    for absent in ABSENT:
        sys.modules[absent] = MagicMock()
    if sys.argv[1] == "names":
        Path(sys.argv[2]).write_text(json.dumps(names()))
    else:
        answers(sys.argv[2], Path(sys.argv[3]))
