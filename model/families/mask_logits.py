"""Compute the logits of masks from a decoder's image tokens, in blocks that fit into the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, unflatten

from .linear import product

BLOCK_NUMBERS = 2**18  # numbers per block of image tokens, 1 MiB; with smaller blocks, threads wait for one another


def blocks(prompts: int, image: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Divide the work on image tokens (p, N, C) into blocks of at most BLOCK_NUMBERS numbers.

    If an image has few tokens, a block covers several prompts. If an image has many tokens, a block covers a part of
    the tokens of one prompt.

    Yields:
        A slice of prompts, and the slices of image tokens to process for these prompts.
    """
    tokens, block = image.shape[1], BLOCK_NUMBERS // image.shape[2]
    step = max(1, block // tokens)
    parts = [slice(start, start + block) for start in range(0, tokens, block)]
    for start in range(0, prompts, step):
        yield slice(start, start + step), parts


def upscale_logits(
    decoder: Any,
    image: Tensor,
    weights: Tensor,
    high_resolution: tuple[Tensor, ...],
    size: torch.Size,
    needed: Tensor,
) -> Tensor:
    """Compute the logits of masks.

    Args:
        decoder: transformers' mask decoder.
        image: (p, h * w, C) image tokens.
        weights: (p, m, C / 8) weights of each mask.
        high_resolution: SAM 2's larger feature maps, as in `predict_masks`.
        size: (h, w).
        needed: (p,) bool, whether the logits of a prompt are needed. The logits of other prompts may be zeros.

    Returns:
        (p, m, 4 h, 4 w) logits.
    """
    height, width = size
    first, second = (  # weights that yield the 2 x 2 pixels of a token side by side
        (conv.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), conv.bias.repeat(4))
        for conv in (decoder.upscale_conv1, decoder.upscale_conv2)
    )
    norm = decoder.upscale_layer_norm
    maps_4x, maps_2x = (
        (_to_patches(maps, height, width) for maps in high_resolution) if high_resolution else (None, None)
    )
    prompts, masks = weights.shape[:2]
    logits = image.new_zeros(prompts, masks, 4 * height, 4 * width)
    for block, parts in blocks(prompts, image):
        if not needed[block].any():
            continue
        count = len(needed[block])
        patches = image.new_empty(count, masks, height * width, 16)
        for part in parts:
            small = unflatten(product(image[block, part], *first), -1, (4, -1)).flatten(1, 2)
            if maps_2x is not None:
                small += (maps_2x if len(maps_2x) == 1 else maps_2x[block])[:, part].flatten(1, 2)
            small = F.gelu(F.layer_norm(small, small.shape[-1:], norm.weight, norm.bias, norm.eps))
            large = unflatten(product(small, *second, gelu=maps_4x is None), -1, (4, -1)).flatten(1, 2)
            if maps_4x is not None:
                large += (maps_4x if len(maps_4x) == 1 else maps_4x[block])[:, part].flatten(1, 2)
                large = F.gelu(large)
            patches[:, :, part] = unflatten(weights[block] @ large.mT, -1, (-1, 16))
        # Copying two neighbouring float32 numbers as one float64 number takes a tenth of the time.
        pairs = patches.view(torch.float64).view(count, masks, height, width, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5)
        logits[block].view(torch.float64).view(pairs.shape).copy_(pairs)
    return logits


def _to_patches(maps: Tensor, height: int, width: int) -> Tensor:
    """Reorder (n, c, k h, k w) to (n, h * w, k * k, c), where k is 2 or 4.

    The k * k pixels of a token get the order in which `upscale_logits` computes them.
    """
    count, channels = maps.shape[:2]
    levels = (maps.shape[-1] // width).bit_length() - 1
    split = maps.reshape(count, channels, height, *[2] * levels, width, *[2] * levels)
    pairs = [axis for level in range(levels) for axis in (3 + level, 4 + levels + level)]
    return split.permute(0, 2, 3 + levels, *pairs, 1).reshape(count, height * width, -1, channels)
