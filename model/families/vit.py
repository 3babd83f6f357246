"""Fast layers for the image encoders of SAM and SAM-HQ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionLayer
from transformers.models.sam_hq.modeling_sam_hq import SamHQVisionLayer

from . import windows
from .device_attention import attend_windows
from .fast_layer import FastLayer, replace_layers
from .linear import linear, mlp, product, project, uses_onednn

MKL_QUERY_ROWS = 2  # rows of queries per step of global attention, which gives 128 x 4096 logits, 2 MiB
ONEDNN_QUERY_ROWS = 8  # the same if oneDNN multiplies, 8 MiB
SMALL_WINDOW = 16  # side in tokens; up to this size, the logits of all heads and queries are computed in one step
MLP_NUMBERS = 3 * 2**20  # inner activations of the MLP computed per step, 12 MiB


def use_fast_layers(encoder: Any) -> None:
    """Replace the layers of a SamVisionEncoder or SamHQVisionEncoder in place by layers that are faster.

    The fast layers compute the same sums in another order, so results differ by rounding only. On a CPU, most of the
    data stays in the processor's cache. Measurements are in docs/performance.md.

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
        self._attend(self.layer_norm1(hidden_states), attended)
        output = linear(self.attn.proj, attended, hidden_states)
        normed = self.layer_norm2(output).flatten(0, 2)
        tokens = output.view(normed.shape)
        step = MLP_NUMBERS // (4 * tokens.shape[-1])
        for start in range(0, len(tokens), step):
            part = slice(start, start + step)
            tokens[part] = mlp(self.mlp.lin1, self.mlp.act, self.mlp.lin2, normed[part], tokens[part])
        return output

    def device_forward(self, hidden_states: Tensor, **options: Any) -> Tensor:
        """Apply the layer to (images, height, width, channels) tokens with few, large operations."""
        height, width = hidden_states.shape[1:3]
        window = (self.window_size, self.window_size) if self.window_size else (height, width)
        attended = attend_windows(self.layer_norm1(hidden_states), self.attn, window)
        output: Tensor = hidden_states + self.attn.proj(attended)
        output += self.mlp(self.layer_norm2(output))
        return output

    def _attend(self, normed: Tensor, output: Tensor) -> None:
        """Compute the attention within each window.

        Args:
            normed: (images, height, width, channels) normalised tokens.
            output: (images, height, width, channels), which is overwritten with the result.
        """
        attention = self.attn
        height, width = normed.shape[1:3]
        window = (self.window_size, self.window_size) if self.window_size else (height, width)
        if not attention.use_rel_pos:
            for image_qkv, image_output in zip(linear(attention.qkv, normed), output, strict=True):
                image_output.copy_(windows.attend(image_qkv, attention, window)[:height, :width])
            return
        tables = attention.rel_pos_h, attention.rel_pos_w
        positions = [attention.get_rel_pos(side, side, table).mT for side, table in zip(window, tables, strict=True)]
        for image_tokens, image_output in zip(normed, output, strict=True):
            qkv = project(attention.qkv, image_tokens, 3)
            for top in range(0, height, window[0]):
                for left in range(0, width, window[1]):
                    cell = slice(top, top + window[0]), slice(left, left + window[1])
                    cell_qkv = [part[cell] for part in qkv]
                    _attend_in_window(cell_qkv, positions, attention, window, image_output[cell])


class FastSamVisionLayer(FastVisionLayer, SamVisionLayer):
    """SAM's layer, with a fast path."""


class FastSamHQVisionLayer(FastVisionLayer, SamHQVisionLayer):
    """SAM-HQ's layer, with a fast path."""


def _attend_in_window(
    qkv: list[Tensor], positions: list[Tensor], attention: Any, window: tuple[int, int], output: Tensor
) -> None:
    """Compute the attention within one window. At the edge of the image, the window may be larger than its tokens.

    Args:
        qkv: queries, keys and values, each (h, w, channels).
        positions: as in `_attend_with_bias`.
        attention: transformers' attention module.
        window: (height, width) of a whole window.
        output: (h, w, channels), which is overwritten with the result.
    """
    height, width = output.shape[:2]
    if (height, width) == window:
        _attend_with_bias(qkv, positions, attention, output)
        return
    # The padding is zeros. The projection of zeros is the bias.
    padded_qkv = [bias.expand(*window, -1).clone() for bias in attention.qkv.bias.chunk(3)]
    for padded, part in zip(padded_qkv, qkv, strict=True):
        padded[:height, :width] = part
    padded_output = torch.empty_like(padded_qkv[0])
    _attend_with_bias(padded_qkv, positions, attention, padded_output)
    output.copy_(padded_output[:height, :width])


def _attend_with_bias(qkv: list[Tensor], positions: list[Tensor], attention: Any, output: Tensor) -> None:
    """Compute the attention within a whole window.

    Args:
        qkv: queries, keys and values, each (height, width, channels).
        positions: (height, d, height) factors for the rows and (width, d, width) factors for the columns of queries.
            The relative-position bias is the sum of the products of queries and factors.
        attention: transformers' attention module.
        output: (height, width, channels), which is overwritten with the result.
    """
    height, width = output.shape[:2]
    heads = attention.num_attention_heads
    # each (heads, height, width, d)
    query, key, value = (torch.unflatten(part, -1, (heads, -1)).permute(2, 0, 1, 3).contiguous() for part in qkv)
    row_bias = (query @ positions[0])[..., None]  # (heads, height, width, height, 1)
    by_column = query.transpose(1, 2) @ positions[1]
    column_bias = by_column.transpose(1, 2)[..., None, :]  # (heads, height, width, 1, width)
    queries, keys, values = (part.flatten(1, 2) for part in (query.mul_(attention.scale), key, value))
    if height <= SMALL_WINDOW:
        logits = torch.add(row_bias, column_bias).view(heads, height * width, height * width)
        logits.baddbmm_(queries, keys.mT)
        attended = torch.bmm(torch.softmax(logits, -1, out=logits), values)
    else:
        attended = torch.empty_like(values)
        attend_rows = _attend_rows_with_onednn if uses_onednn() else _attend_rows_with_mkl
        for head in range(heads):
            attend_rows(
                queries[head], keys[head], values[head], row_bias[head], column_bias[head], output=attended[head]
            )
    output.copy_(attended.view(heads, height, width, -1).permute(1, 2, 0, 3).flatten(2))


def _attend_rows_with_mkl(
    queries: Tensor, keys: Tensor, values: Tensor, row_bias: Tensor, column_bias: Tensor, *, output: Tensor
) -> None:
    """Compute the attention of one head, for some rows of queries at a time.

    MKL adds a product to the bias in place.

    Args:
        queries: (height * width, d) scaled queries.
        keys: (height * width, d).
        values: (height * width, d).
        row_bias: (height, width, height, 1), added to all keys of a row.
        column_bias: (height, width, 1, width), added to all keys of a column.
        output: (height * width, d), which is overwritten with the result.
    """
    height, width = row_bias.shape[:2]
    buffer = torch.empty(MKL_QUERY_ROWS, width, height, width)
    for top in range(0, height, MKL_QUERY_ROWS):
        rows, tokens = slice(top, top + MKL_QUERY_ROWS), slice(top * width, (top + MKL_QUERY_ROWS) * width)
        logits = torch.add(row_bias[rows], column_bias[rows], out=buffer[: height - top]).view(-1, height * width)
        logits.addmm_(queries[tokens], keys.mT)
        torch.mm(torch.softmax(logits, -1, out=logits), values, out=output[tokens])


def _attend_rows_with_onednn(
    queries: Tensor, keys: Tensor, values: Tensor, row_bias: Tensor, column_bias: Tensor, *, output: Tensor
) -> None:
    """Compute the attention of one head as `_attend_rows_with_mkl`, with the steps that suit oneDNN."""
    height, width = row_bias.shape[:2]
    transposed_values = values.mT.contiguous()
    for top in range(0, height, ONEDNN_QUERY_ROWS):
        rows, tokens = slice(top, top + ONEDNN_QUERY_ROWS), slice(top * width, (top + ONEDNN_QUERY_ROWS) * width)
        logits = product(queries[tokens], keys, None)
        by_place = logits.view(-1, width, height, width)
        by_place += row_bias[rows]
        by_place += column_bias[rows]
        output[tokens] = product(torch.softmax(logits, -1, out=logits), transposed_values, None)
