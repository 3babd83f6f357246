"""Fast layers for the image encoders of SAM and SAM-HQ on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionLayer
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionLayer

from . import windows
from .fast_layer import FastLayer, replace_layers
from .linear import linear, mlp, product

QUERY_ROWS = 8  # rows of queries per step of global attention, which gives 512 x 4096 logits, 8 MiB
MLP_NUMBERS = 3 * 2**20  # inner activations of the MLP computed per step, 12 MiB


def use_fast_layers(encoder: Any) -> None:
    """Replace the layers of a SamVisionEncoder or SamHQVisionEncoder in place by layers that are faster on a CPU.

    The fast layers compute the same sums in another order, so results differ by rounding only. Most of the data stays
    in the processor's cache. Measurements are in docs/performance.md.

    - Queries, keys and values are projected before the image is cut into windows, so padding is not multiplied.
    - The relative-position bias (heads x 4096 x 4096 numbers in a global layer of ViT-B) is never computed as a whole.
      Its terms for rows and columns are added to the logits of a few rows of queries at a time.
    - The MLP processes a part of the tokens at a time.

    Args:
        encoder: `model.vision_encoder` of a SamModel or SamHQModel.
    """
    replace_layers(encoder.layers, {SamVisionLayer: FastSamVisionLayer, SamHQVisionLayer: FastSamHQVisionLayer})


class FastVisionLayer(FastLayer):
    """The fast path of the layers of SAM and SAM-HQ, which differ only in their names."""

    layer_norm1: Any
    attn: Any
    layer_norm2: Any
    mlp: Any
    window_size: int

    def fast_forward(self, hidden_states: Tensor) -> Tensor:
        """Apply the layer to (images, height, width, channels) tokens."""
        attended = torch.empty_like(hidden_states)
        self._attend(linear(self.attn.qkv, self.layer_norm1(hidden_states)), attended)
        output = linear(self.attn.proj, attended, hidden_states)
        normed = self.layer_norm2(output).flatten(0, 2)
        tokens = output.view(normed.shape)
        step = MLP_NUMBERS // (4 * tokens.shape[-1])
        for start in range(0, len(tokens), step):
            part = slice(start, start + step)
            tokens[part] = mlp(self.mlp.lin1, self.mlp.act, self.mlp.lin2, normed[part], tokens[part])
        return output

    def _attend(self, qkv: Tensor, output: Tensor) -> None:
        """Compute the attention within each window.

        Args:
            qkv: (images, height, width, 3 * channels) projected tokens.
            output: (images, height, width, channels), which is overwritten with the result.
        """
        attention = self.attn
        height, width = qkv.shape[1:3]
        window = (self.window_size, self.window_size) if self.window_size else (height, width)
        if not attention.use_rel_pos:
            for image_qkv, image_output in zip(qkv, output, strict=True):
                image_output.copy_(windows.attend(image_qkv, attention, window)[:height, :width])
            return
        tables = attention.rel_pos_h, attention.rel_pos_w
        positions = [attention.get_rel_pos(side, side, table).mT for side, table in zip(window, tables, strict=True)]
        for image_qkv, image_output in zip(qkv, output, strict=True):
            for top in range(0, height, window[0]):
                for left in range(0, width, window[1]):
                    cell = slice(top, top + window[0]), slice(left, left + window[1])
                    _attend_in_window(image_qkv[cell], positions, attention, window, image_output[cell])


class FastSamVisionLayer(FastVisionLayer, SamVisionLayer):
    """SAM's layer, with a fast path."""


class FastSamHQVisionLayer(FastVisionLayer, SamHQVisionLayer):
    """SAM-HQ's layer, with a fast path."""


def _attend_in_window(
    qkv: Tensor, positions: list[Tensor], attention: Any, window: tuple[int, int], output: Tensor
) -> None:
    """Compute the attention within one window. At the edge of the image, the window may be larger than its tokens.

    Args:
        qkv: (h, w, 3 * channels) projected tokens.
        positions: as in `_attend_with_bias`.
        attention: transformers' attention module.
        window: (height, width) of a whole window.
        output: (h, w, channels), which is overwritten with the result.
    """
    height, width = qkv.shape[:2]
    if (height, width) == window:
        _attend_with_bias(qkv, positions, attention, output)
        return
    # The padding is zeros. The projection of zeros is the bias.
    padded_qkv = attention.qkv.bias.expand(*window, -1).clone()
    padded_qkv[:height, :width] = qkv
    padded_output = torch.empty_like(padded_qkv[..., : output.shape[-1]])
    _attend_with_bias(padded_qkv, positions, attention, padded_output)
    output.copy_(padded_output[:height, :width])


def _attend_with_bias(qkv: Tensor, positions: list[Tensor], attention: Any, output: Tensor) -> None:
    """Compute the attention within a whole window.

    Args:
        qkv: (height, width, 3 * channels) projected tokens.
        positions: (height, d, height) factors for the rows and (width, d, width) factors for the columns of queries.
            The relative-position bias is the sum of the products of queries and factors.
        attention: transformers' attention module.
        output: (height, width, channels), which is overwritten with the result.
    """
    height, width = qkv.shape[:2]
    heads = attention.num_attention_heads
    split = torch.unflatten(qkv, -1, (3, heads, -1))
    query, key, value = split.permute(2, 3, 0, 1, 4).contiguous()  # each (heads, height, width, d)
    row_bias = query @ positions[0]  # (heads, height, width, height)
    column_bias = (query.transpose(1, 2) @ positions[1]).transpose(1, 2)  # (heads, height, width, width)
    queries, keys, values = (part.flatten(1, 2) for part in (query.mul_(attention.scale), key, value))
    if height <= 2 * QUERY_ROWS:
        attended = torch.bmm(_softmax_with_bias(torch.bmm(queries, keys.mT), row_bias, column_bias), values)
    else:
        attended = torch.empty_like(values)
        for head in range(heads):
            head_values = values[head].mT.contiguous()
            for top in range(0, height, QUERY_ROWS):
                rows, tokens = slice(top, top + QUERY_ROWS), slice(top * width, (top + QUERY_ROWS) * width)
                logits = product(queries[head, tokens], keys[head], None)
                weights = _softmax_with_bias(logits, row_bias[head, rows], column_bias[head, rows])
                attended[head, tokens] = product(weights, head_values, None)
    output.copy_(attended.view(heads, height, width, -1).permute(1, 2, 0, 3).flatten(2))


def _softmax_with_bias(logits: Tensor, row_bias: Tensor, column_bias: Tensor) -> Tensor:
    """Convert logits to attention weights in place.

    Args:
        logits: (..., queries, keys).
        row_bias: (..., rows, width, height), added to all keys of a row.
        column_bias: (..., rows, width, width), added to all keys of a column.
    """
    by_place = logits.view(*row_bias.shape, column_bias.shape[-1])
    by_place += row_bias[..., None]
    by_place += column_bias[..., None, :]
    return torch.softmax(logits, -1, out=logits)
