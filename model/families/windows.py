"""Attention among the tokens of each window of an image, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 512  # tokens of a window whose attention weights are made at once


def attend(qkv: Tensor, attention: Any, window: tuple[int, int], stride: tuple[int, int] | None = None) -> Tensor:
    """Attention without a bias in all windows (height, width) at once: qkv (height, width, 3 * channels) to (height,
    width, channels), each side up to a multiple of the window's, and cut by `stride`, by which queries are pooled.

    In small windows two plain products and a softmax, together: they are not worth a call each. Encoding with sam-tiny
    is 1.06 to 1.11 times as fast.
    """
    high, wide = window
    height, width = qkv.shape[:2]
    down, across = -(-height // high), -(-width // wide)
    if (down * high, across * wide) != (height, width):  # padding is zeros, of which the projection's bias is left
        whole = attention.qkv.bias.expand(down * high, across * wide, -1).clone()
        whole[:height, :width] = qkv
        qkv = whole
    heads = attention.num_attention_heads
    windows = qkv.unflatten(1, (across, wide)).unflatten(0, (down, high)).unflatten(-1, (3, heads, -1))
    query, key, value = windows.permute(4, 0, 2, 5, 1, 3, 6).flatten(1, 3)  # (windows * heads, high, wide, d)
    if stride:
        query = pooled(query, stride)
        high, wide = query.shape[1:3]
    query, key, value = (part.flatten(1, 2) for part in (query, key, value))
    if key.shape[1] > FEW:
        found = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
    else:
        logits = torch.bmm(query, key.mT).mul_(attention.scale)
        found = torch.bmm(torch.softmax(logits, -1, out=logits), value)
    found = found.view(down, across, heads, high, wide, -1).permute(0, 3, 1, 4, 2, 5)
    return found.reshape(down * high, across * wide, -1)


def pooled(maps: Tensor, stride: tuple[int, int]) -> Tensor:
    """The largest of each cell of `stride` pixels: (..., height, width, channels) to (..., height / stride[0], width /
    stride[1], channels)."""
    for axis, step in ((-3, stride[0]), (-2, stride[1])):
        if step > 1:
            maps = maps.unflatten(axis, (-1, step)).amax(axis)
    return maps
