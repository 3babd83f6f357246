"""SAM's image encoder on a CPU: transformers' layers, their work ordered so that it stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.families import windows
from model.families.linear import linear, mlp, product

ROWS = 8  # of queries at a time in global attention: 512 x 4096 logits, 8 MiB
INNER = 3 * 2**20  # numbers of the MLP's inner activations at a time, 12 MiB


def swap(encoder: Any) -> None:
    """Makes a SamVisionEncoder's layers (or SamHQ's) do their work as `_layer` does, where that is on a CPU.

    The same sums in another order: what differs is rounding. Queries, keys and values are projected before windows are
    cut, so that padding is not multiplied; the relative-position bias, heads x 4096 x 4096 numbers in a global layer of
    ViT-B, is never made: its terms for rows and for columns are added to the logits of a few rows of queries at a time;
    the MLP's inner activations exist for some tokens at a time. Measured in docs/performance.md.
    """
    for layer in encoder.layers:
        layer.forward = partial(_layer, layer, layer.forward)


def _layer(layer: Any, reference: Callable[[Tensor], Tensor], hidden_states: Tensor) -> Tensor:
    """(images, height, width, channels) to the same."""
    if hidden_states.device.type != "cpu" or torch.is_grad_enabled():
        return reference(hidden_states)
    attention = layer.attn
    qkv = linear(attention.qkv, layer.layer_norm1(hidden_states))
    mixed = torch.empty_like(hidden_states)
    side = layer.window_size or 0
    height, width = hidden_states.shape[1:3]
    step = (side, side) if side else (height, width)
    positions = None
    if attention.use_rel_pos:
        tables = attention.rel_pos_h, attention.rel_pos_w
        positions = [attention.get_rel_pos(n, n, table).mT for n, table in zip(step, tables, strict=True)]
    for i in range(len(qkv)):
        if positions is None:
            mixed[i] = windows.attend(qkv[i], attention, step)[:height, :width]
            continue
        for top in range(0, height, step[0]):
            for left in range(0, width, step[1]):
                window = qkv[i, top : top + step[0], left : left + step[1]]
                kept = mixed[i, top : top + step[0], left : left + step[1]]
                if window.shape[:2] == step:
                    _attend(window, positions, attention, kept)
                else:  # padding is zeros, of which the projection's bias is left
                    whole = attention.qkv.bias.expand(*step, -1).clone()
                    whole[: window.shape[0], : window.shape[1]] = window
                    answer = torch.empty_like(whole[..., : mixed.shape[-1]])
                    _attend(whole, positions, attention, answer)
                    kept.copy_(answer[: window.shape[0], : window.shape[1]])
    output = linear(attention.proj, mixed, hidden_states)
    normed = layer.layer_norm2(output).flatten(0, 2)
    flat = output.view(normed.shape)
    tokens = INNER // (4 * flat.shape[-1])
    for start in range(0, len(flat), tokens):
        some = slice(start, start + tokens)
        flat[some] = mlp(layer.mlp.lin1, layer.mlp.act, layer.mlp.lin2, normed[some], flat[some])
    return output


def _attend(qkv: Tensor, positions: list[Tensor], attention: Any, answer: Tensor) -> None:
    """Attention among a window's tokens: qkv (height, width, 3 * channels) into answer (height, width, channels).

    positions: what each row (height, d, height) and column (width, d, width) of queries is multiplied with for the
    bias, which is the sum of both.
    """
    height, width = qkv.shape[:2]
    heads = attention.num_attention_heads
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 3, 0, 1, 4).contiguous()  # (heads, h, w, d)
    rows = query @ positions[0]  # (heads, h, w, h)
    columns = (query.transpose(1, 2) @ positions[1]).transpose(1, 2)  # (heads, h, w, w)
    queries, keys, values = (part.flatten(1, 2) for part in (query.mul_(attention.scale), key, value))
    if height <= 2 * ROWS:
        found = torch.bmm(_weights(torch.bmm(queries, keys.mT), rows, columns), values)
    else:
        found = torch.empty_like(values)
        for head in range(heads):
            turned = values[head].mT.contiguous()
            for top in range(0, height, ROWS):
                part, tokens = slice(top, top + ROWS), slice(top * width, (top + ROWS) * width)
                logits = product(queries[head, tokens], keys[head], None)
                found[head, tokens] = product(_weights(logits, rows[head, part], columns[head, part]), turned, None)
    answer.copy_(found.view(heads, height, width, -1).permute(1, 2, 0, 3).flatten(2))


def _weights(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention weights, in place of the logits (..., queries, keys), with their bias by rows (..., h, w, height) and
    columns (..., h, w, width)."""
    placed = logits.view(*rows.shape, columns.shape[-1])
    placed += rows[..., None]
    placed += columns[..., None, :]
    return torch.softmax(logits, -1, out=logits)
