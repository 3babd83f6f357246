"""A fast forward pass of SAM 3's vision transformer on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.sam3.modeling_sam3 import Sam3ViTModel

from ..fast_layer import FastLayer
from ..linear import linear, mlp

MLP_NUMBERS = 3 * 2**20  # inner activations of the MLP computed per step, 12 MiB


class FastSam3ViT(FastLayer, Sam3ViTModel):
    """SAM 3's vision transformer, with a fast path.

    The fast path computes the same sums in another order, so results differ by rounding only.

    - The tokens are sorted by window once. transformers sorts them in each windowed layer, and sorts them back. A layer
      with global attention does not depend on the order, if the angles of the rotary embedding have the same order.
    - The rotary embedding of a pair of numbers is a product of complex numbers, which is computed in place.
    - The MLP processes a part of the tokens at a time.
    """

    embeddings: Any
    layer_norm: Any

    @property
    def window_pixels(self) -> int:
        """The side of a window in pixels."""
        return int(self.config.window_size) * int(self.config.patch_size)  # type: ignore[arg-type]  # never a list

    def has_fast_path(self, hidden_states: Tensor) -> bool:
        """Return whether windows divide the image without a remainder. `hidden_states` are the pixels of images."""
        return all(side % self.window_pixels == 0 for side in hidden_states.shape[-2:])

    def fast_forward(self, hidden_states: Tensor) -> Any:
        """Encode images.

        Args:
            hidden_states: (n, 3, height, width) pixels.

        Returns:
            An output with (n, tokens, channels) `last_hidden_state`, the tokens of an image row by row.
        """
        side, window = int(self.config.window_size), self.window_pixels
        down, across = (size // window for size in hidden_states.shape[-2:])
        tokens = _swap(self.layer_norm(self.embeddings(hidden_states)), (down, side, across, side))
        rotations: dict[int, Tensor] = {}  # by the window size of the layers, which is 0 for global attention
        layers: Any = self.layers
        for layer in layers:
            if layer.window_size not in rotations:
                cosine, sine = (part[0, :, ::2] for part in layer.rotary_emb(tokens, layer.position_ids))
                rotation = torch.complex(cosine, sine)
                if not layer.window_size:
                    rotation = _swap(rotation[None], (down, side, across, side))[0]
                rotations[layer.window_size] = rotation[:, None]
            tokens = _attend(layer, tokens, rotations[layer.window_size])
            _apply_mlp(layer, tokens.view(-1, tokens.shape[-1]))
        return BaseModelOutput(last_hidden_state=_swap(tokens, (down, across, side, side)))


def _swap(tokens: Tensor, split: tuple[int, int, int, int]) -> Tensor:
    """Exchange the two middle axes of the tokens' order.

    Args:
        tokens: (n, N, channels).
        split: four numbers with the product N. The tokens are in the order of a grid of this shape.

    Returns:
        (n, N, channels) tokens.
    """
    return torch.unflatten(tokens, 1, split).transpose(2, 3).reshape(tokens.shape)


def _attend(layer: Any, tokens: Tensor, rotation: Tensor) -> Tensor:
    """Apply the first half of a layer.

    Args:
        layer: a Sam3ViTLayer.
        tokens: (n, N, channels) tokens, sorted by window.
        rotation: (tokens of a window, 1, d / 2) complex rotary embedding. A window of a global layer is the image.

    Returns:
        (n, N, channels) tokens.
    """
    attention = layer.attention
    heads, window = attention.num_attention_heads, len(rotation)
    normed = layer.layer_norm1(tokens)
    query, key, value = (
        linear(projection, normed).view(-1, window, heads, attention.head_dim)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    for part in (query, key):
        torch.view_as_complex(torch.unflatten(part, -1, (-1, 2))).mul_(rotation)
    attended = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale=attention.scaling
    )
    return linear(attention.o_proj, attended.transpose(1, 2).reshape(tokens.shape), tokens)


def _apply_mlp(layer: Any, tokens: Tensor) -> None:
    """Apply the second half of a layer to (N, channels) tokens in place."""
    step = max(1, MLP_NUMBERS // layer.mlp.fc1.bias.numel())
    for start in range(0, len(tokens), step):
        part = tokens[start : start + step]
        normed = layer.layer_norm2(part)
        part.copy_(mlp(layer.mlp.fc1, layer.mlp.activation_fn, layer.mlp.fc2, normed, part))


def use_fast_layers(encoder: Any) -> None:
    """Replace the vision transformer of a Sam3VisionModel in place by one that is faster on a CPU."""
    if type(encoder.backbone) is Sam3ViTModel:
        encoder.backbone = FastSam3ViT(encoder.backbone)
