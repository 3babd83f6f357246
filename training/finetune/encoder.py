"""Train the image encoder: encode images with gradients, and add low-rank adapters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sam_endpoint.model.errors import BadParameter
from sam_endpoint.model.families.family import Family
from sam_endpoint.model.families.sam2 import Sam2
from sam_endpoint.model.families.sam3 import Sam3Detector

# The attention projections of SAM's, Hiera's and SAM 3's layers, by the last part of their names.
PROJECTIONS = ("qkv", "proj", "q_proj", "k_proj", "v_proj", "o_proj")
ATTENTIONS = ("attn", "attention")


class LowRank(nn.Module):
    """Adds the product of two small matrices to a weight: LoRA (Hu et al., 2021) as a parametrization.

    Args:
        weight: (out, in), the weight to adapt.
        rank: The rank of the product.
        generator: Draws the first matrix. The second matrix starts at zero, so the weight is the same at first.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        down = torch.empty(rank, columns).uniform_(-1, 1, generator=generator) / math.sqrt(columns)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(rows, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight, (out, in)."""
        return weight + self.up @ self.down


def encode_with_gradients(family: Family, pixels: Tensor) -> tuple[Tensor, ...]:
    """Encode images like `family.embed`, with gradients for the encoder's weights.

    Args:
        family: The model.
        pixels: (n, 3, S, S) float32 on the model's device.
    """
    if isinstance(family, Sam2) and not isinstance(family, Sam3Detector):
        # transformers decorates this method with torch.no_grad.
        embed: Any = type(family.model).get_image_embeddings
        return tuple(embed.__wrapped__(family.model, pixels))
    return family.embed(pixels)


def add_adapters(family: Family, rank: int, seed: int) -> None:
    """Add adapters to the attention projections of the encoder. Raises BadParameter if the encoder has no attention."""
    generator = torch.Generator().manual_seed(seed)
    encoder: nn.Module = family.vision_encoder
    layers = _projections(encoder)
    if not layers:
        raise BadParameter(f"--mode lora: the encoder of '{family.name}' has no attention; use --mode decoder or full")
    for layer in layers:
        weight = layer.weight
        parametrize.register_parametrization(layer, "weight", LowRank(weight.detach(), rank, generator))


def merge_adapters(family: Family) -> None:
    """Add each adapter's product to the adapted weight, and remove the adapters. Changes the model in place."""
    for layer in list(family.vision_encoder.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    family.model.requires_grad_(False)


def _projections(encoder: nn.Module) -> list[nn.Linear]:
    return [
        layer
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear)
        and name.rpartition(".")[2] in PROJECTIONS
        and any(part in ATTENTIONS for part in name.split("."))
    ]
