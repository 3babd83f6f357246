"""SAM 2's image encoder, Hiera, on a CPU: transformers' blocks, their work ordered so that it stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.families import windows
from model.families.linear import linear, mlp

NUMBERS = 2**21  # of a block's output at a time, 8 MiB, or as many as a row of windows has


def swap(backbone: Any) -> None:
    """Makes a Sam2HieraDetModel's blocks do their work as `_block` does, where that is on a CPU.

    The same sums in another order: what differs is rounding. All of a block is done to some rows of windows before the
    next ones are looked at; queries, keys and values are projected before windows are cut, so that padding is not
    multiplied; attention in small windows is two plain products and a softmax. What transformers computes and does not
    use, attention among the heads of a token, is left out. Measured in docs/performance.md.
    """
    for block in backbone.blocks:
        block.forward = partial(_block, block, block.forward)


def _block(block: Any, reference: Callable[..., Tensor], hidden_states: Tensor, **options: Any) -> Tensor:
    """(images, height, width, channels) to (images, height, width, block.dim_out), or half of both sides."""
    down, across = block.query_stride or (1, 1)
    images, height, width = hidden_states.shape[:3]
    window = (block.window_size,) * 2 if block.window_size else (height, width)
    # Of odd windows, which no checkpoint of Meta's has, pooling leaves something out.
    uneven = any(side % stride for side in (height, width, window[0]) for stride in (down, across))
    if hidden_states.device.type != "cpu" or torch.is_grad_enabled() or uneven:
        return reference(hidden_states, **options)
    output = hidden_states.new_empty(images, height // down, width // across, block.dim_out)
    tokens = NUMBERS // block.dim_out
    rows = window[0] * max(1, tokens // (window[0] * width))
    for image, answer in zip(hidden_states, output, strict=True):
        for top in range(0, height, rows):
            part, kept = image[top : top + rows], answer[top // down : (top + rows) // down]
            normed = block.layer_norm1(part)
            mixed = windows.attend(linear(block.attn.qkv, normed), block.attn, window, block.query_stride)
            if block.dim != block.dim_out:
                part = windows.pooled(linear(block.proj, normed), (down, across))
            kept.copy_(linear(block.attn.proj, mixed[: len(kept), : kept.shape[1]], part))
            flat, inner = kept.flatten(0, 1), block.mlp
            for start in range(0, len(flat), tokens):
                some = flat[start : start + tokens]
                some.copy_(mlp(inner.proj_in, inner.activation, inner.proj_out, block.layer_norm2(some), some))
    return output
