"""The EdgeTAM family (2025): SAM 2 on a small convolutional backbone, with small memories."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import EdgeTamModel, EdgeTamVideoModel, PreTrainedModel

from .decoder import to_tokens
from .sam2 import Sam2
from .sam2_video import Sam2Video, compute_rotation


class EdgeTam(Sam2):
    """Checkpoint `yonigozlan/EdgeTAM-hf`. Its backbone needs timm, and the torchvision release that matches torch."""

    name = "edgetam"
    model_class: ClassVar[type[PreTrainedModel]] = EdgeTamModel
    requirements = ("timm==1.0.31", "torchvision==0.28.0")


class EdgeTamVideo(Sam2Video, EdgeTam):
    """Checkpoint `yonigozlan/EdgeTAM-hf` with its memory parts.

    A resampler reduces a memory to two groups of tokens: the first group has no positions; the second group is a grid.
    """

    model_class = EdgeTamVideoModel
    image_family = EdgeTam
    binarizes_together = False

    def _compress(self, maps: Tensor) -> Tensor:
        """Resample encoded masks (p, c, h, w) to memories (p, T, c)."""
        positions = self.model.memory_encoder.position_encoding(maps[:1].shape, maps.device, maps.dtype)
        # transformers' resampler accepts a single object.
        return torch.cat([self.model.spatial_perceiver(own[None], positions)[0] for own in maps])

    def _position_memory(self) -> Tensor:
        """Return zeros for the first group of tokens, and the position encoding of the grid, (T, c)."""
        perceiver = self.model.spatial_perceiver
        side = math.isqrt(perceiver.num_latents_2d)
        shape = torch.Size((1, perceiver.hidden_size, side, side))
        grid = to_tokens(perceiver.positional_encoding(shape, self.device, torch.float32))[0]
        return torch.cat([grid.new_zeros(perceiver.num_latents_1d, perceiver.hidden_size), grid])

    def _rotate_memory(self) -> Tensor:
        """Return no rotation for the first group of tokens, and the rotary embedding of the grid, (T, C / 2)."""
        attention = self.model.memory_attention
        grid = compute_rotation(attention, attention.position_ids_k)
        return torch.cat([torch.ones_like(grid[:1]).expand(self.model.spatial_perceiver.num_latents_1d, -1), grid])

    def _attention_options(self, frames: int) -> dict[str, Any]:
        """Return the number of memories, which transformers' memory attention needs."""
        return {"num_spatial_memory_tokens": frames}
