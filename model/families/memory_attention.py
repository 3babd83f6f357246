"""A faster memory attention of SAM 2 on a CPU, with the weights of transformers' memory attention.

The tokens of a frame attend to one another, and then to the memories of earlier frames: 4096 tokens per memory, and 7
memories, in Meta's checkpoints. Most of the time of tracking is spent here. The functions compute the same results as
transformers' modules with less arithmetic and another order of sums, so results differ by rounding only:

- The memories have 64 channels, but the projected values have 256. The attention weights are applied to the memories,
  and the result is projected, because A (M W) = (A M) W. This saves 3 / 8 of the arithmetic of the attention.
- The first self-attention sees only the frame, so it is computed once for all objects.
- Attention weights are computed for some queries at a time, so that they stay in the processor's cache.
- Attention weights are at least e^-80 of the largest weight of the query. Smaller weights can be subnormal numbers, and
  processors need much longer for those: with trained weights, a frame took 2.5 times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .linear import linear, product

BLOCK_NUMBERS = 2**21  # attention weights per block, 8 MiB
LARGEST_GAP = 80.0  # between the logits of a query; e^-80 is 2e-35, and normal float32 numbers start at 1e-38


def has_fast_path(attention: Any, image: Tensor) -> bool:
    """Return whether `attend_to_memory` supports a memory attention, and the feature maps of an image."""
    on_cpu = image.device.type == "cpu" and image.dtype == torch.float32 and not torch.is_grad_enabled()
    return on_cpu and all(layer.self_attn.num_attention_heads == 1 for layer in attention.layers)


def attend_to_memory(
    attention: Any, image: Tensor, memory: Tensor, positions: Tensor, rotation: Tensor, memory_rotation: Tensor
) -> Tensor:
    """Let a frame attend to the memories of p objects.

    Args:
        attention: transformers' Sam2VideoMemoryAttention, or that of a related model.
        image: (1, N, C) tokens of the frame, with their position encoding added.
        memory: (p, M, c) memories and object pointers of each object.
        positions: (p, M, c) position encoding of the memory.
        rotation: (N, C / 2) complex64 rotary embedding of the tokens of the frame.
        memory_rotation: (R, C / 2) complex64 rotary embedding of the first R tokens of the memory, R <= M.

    Returns:
        (p, N, C) tokens, one frame per object.
    """
    tokens, keys = image, memory + positions
    for layer in attention.layers:
        normed = layer.layer_norm1(tokens)
        module = layer.self_attn
        queries = rotate(linear(module.q_proj, normed), rotation)
        own_keys = rotate(linear(module.k_proj, normed), rotation)
        attended = attend(queries.mul_(module.scaling), own_keys, linear(module.v_proj, normed))
        tokens = linear(module.o_proj, attended, tokens)

        module = layer.cross_attn_image
        queries = rotate(linear(module.q_proj, layer.layer_norm2(tokens)), rotation).mul_(module.scaling)
        mixed = memory.new_empty(len(memory), tokens.shape[1], memory.shape[2])
        for index in range(len(memory)):  # the projected keys of one object are many, so they are dropped in between
            memory_keys = linear(module.k_proj, keys[index])
            rotated = memory_keys[: len(memory_rotation)]
            rotated.copy_(rotate(rotated, memory_rotation))
            own_queries = queries[index if len(queries) > 1 else 0]
            mixed[index] = attend(own_queries[None], memory_keys[None], memory[index][None])[0]
        tokens = tokens + linear(module.o_proj, linear(module.v_proj, mixed))

        normed = layer.layer_norm3(tokens)
        inner = layer.mlp if hasattr(layer, "mlp") else None
        if inner is not None:
            tokens = tokens + inner(normed)
        else:
            tokens = linear(layer.linear2, layer.activation(linear(layer.linear1, normed)), tokens)
    result: Tensor = attention.layer_norm(tokens)
    return result


def rotate(tokens: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs of channels: (..., N, C) float32 by (N, C / 2) complex64."""
    pairs = torch.view_as_complex(tokens.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Compute the attention of scaled queries (p, N, C) to keys (p, M, C) with values (p, M, c), as (p, N, c)."""
    output = values.new_empty(*queries.shape[:2], values.shape[2])
    rows = max(1, BLOCK_NUMBERS // keys.shape[1])
    for own_queries, own_keys, own_values, own_output in zip(queries, keys, values, output, strict=True):
        columns = own_values.mT.contiguous()
        for start in range(0, len(own_queries), rows):
            weights = product(own_queries[start : start + rows], own_keys, None)
            torch.maximum(weights, weights.amax(-1, keepdim=True) - LARGEST_GAP, out=weights)
            torch.softmax(weights, -1, out=weights)
            own_output[start : start + rows] = product(weights, columns, None)
    return output


def create_buffers(model: Any) -> None:
    """Create the buffers of the memory attention that checkpoints do not hold. On the meta device, they have no data.

    Args:
        model: a transformers model; models without memory attention are left alone.
    """
    attention = getattr(model, "memory_attention", None)
    if attention is None:
        return
    config = attention.config
    attention.position_ids = attention.precompute_positions(config)
    if hasattr(attention, "position_ids_k"):  # EdgeTAM
        attention.position_ids_k = attention.precompute_positions(config, is_key=True)
    attention.rotary_emb = type(attention.rotary_emb)(config)


def compute_rotation(attention: Any, position_ids: Tensor) -> Tensor:
    """Return the rotary embedding of positions (N, 2) as complex numbers, (N, C / 2)."""
    cos, sin = attention.rotary_emb(position_ids, position_ids)
    return torch.complex(cos[0, :, 0::2].contiguous(), sin[0, :, 0::2].contiguous())
