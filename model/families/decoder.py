"""SAM's and SAM2's mask decoder on a CPU: transformers' weights, far less arithmetic, one prompt's tokens in the cache.

The same function as transformers' mask decoders, in another order of sums. What is saved, for p prompts of T tokens on
an image of N = 4096 tokens of C = 256 channels:

- Prompts without a mask input look at the same image tokens in the first layer: its keys and values are made once.
- Later layers never project the image tokens. The keys' projection goes to the few prompt tokens instead, since
  (q W_k) x = q (W_k x), and so do those of the values, the queries and the output: 8 T columns instead of 128, four
  times a layer. Biases of keys are the same for all keys of a query and fall out of the softmax.
- Upscaling never overlaps (2 x 2 kernels, stride 2): each token makes its own 4 x 4 pixels in three small products, and
  only the masks that are asked for are made.

Measured in docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.families.linear import product

BLOCK = 2**18  # numbers of the image's tokens at a time, 1 MiB; with fewer, threads wait for one another
MOST_TOKENS = 24  # of a prompt; with more, projecting the image is less work


def masks(
    decoder: Any,
    image: Tensor,
    positions: Tensor,
    sparse: Tensor | None,
    dense: Tensor,
    multimask_output: bool,
    fine: tuple[Tensor, ...] = (),
    least: float = -math.inf,
) -> tuple[Tensor, Tensor]:
    """What a SamMaskDecoder or Sam2MaskDecoder answers to p prompts: (p, m, 4 h, 4 w) logits, (p, m) predicted IoU.

    image: (p, C, h, w) feature maps, expanded from one where the prompts are on one image; positions: (1, C, h, w);
    sparse: (p, 1, tokens, C) or None; dense: (p, C, h, w); fine: SAM2's larger feature maps, (p, c, 4 h, 4 w) and
    (p, c, 2 h, 2 w). The logits of a prompt are 0 where none of its three masks is predicted an IoU above `least`.
    """
    count = len(dense)
    known = [getattr(decoder, name, None) for name in ("obj_score_token", "iou_token", "mask_tokens")]
    special = torch.cat([one.weight for one in known if one is not None])
    own = special.expand(count, -1, -1)
    tokens = own if sparse is None else torch.cat([own, sparse[:, 0]], 1)
    if image.device.type != "cpu" or tokens.shape[1] > MOST_TOKENS or image.dtype != torch.float32:
        more = {"high_resolution_features": list(fine)} if fine else {}
        found = decoder(image, positions.expand_as(image), sparse, dense, multimask_output, **more)
        return found[0][:, 0], found[1][:, 0]
    one_image = image.stride(0) == 0 or count == 1
    if one_image and (dense.stride(0) == 0 or count == 1):
        image, dense = image[:1], dense[:1]
    queries, keys = _two_way(decoder.transformer, tokens, _tokens(image + dense), _tokens(positions)[0])

    mask_tokens = queries[:, len(special) - decoder.num_mask_tokens : len(special)]
    scores = decoder.iou_prediction_head(queries[:, len(special) - decoder.num_mask_tokens - 1])
    dynamic = not multimask_output and getattr(decoder, "dynamic_multimask_via_stability", False)
    wanted = slice(1, None) if multimask_output else slice(0, None if dynamic else 1)
    heads = decoder.output_hypernetworks_mlps[wanted]
    weights = torch.stack([head(mask_tokens[:, wanted][:, i]) for i, head in enumerate(heads)], 1)
    if one_image:
        fine = tuple(part[:1] for part in fine)
    scores = scores[:, wanted]
    if dynamic:  # the best of the others is what an unstable single mask falls back on
        best = scores[:, 1:].argmax(1) + 1
        both = torch.stack([torch.zeros_like(best), best], 1)
        weights, scores = weights.take_along_dim(both[..., None], 1), scores.gather(1, both)
    made = (scores > least).any(1) if multimask_output else torch.ones(count, dtype=torch.bool)
    logits = _upscaled(decoder, keys, weights, fine, image.shape[-2:], made)
    if dynamic:
        logits, scores = decoder._dynamic_multimask_via_stability(logits[:, None], scores[:, None])
        return logits[:, 0], scores[:, 0]
    return logits, scores


def _tokens(maps: Tensor) -> Tensor:
    """(n, C, h, w) to (n, h * w, C)."""
    return maps.flatten(2).mT.contiguous()


def _two_way(transformer: Any, first: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt tokens (p, T, C) and image tokens (p or 1, N, C) after looking at each other: (p, T, C), (p, N, C)."""
    queries, keys = first, image
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = _among(layer.self_attn, queries, queries)
        else:
            queries = queries + _among(layer.self_attn, queries + first, queries)
        queries = layer.layer_norm1(queries)
        seen = _image_for_tokens(layer.cross_attn_token_to_image, queries + first, keys, positions)
        queries = layer.layer_norm2(queries + seen)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        keys = _tokens_for_image(layer, keys, positions, queries + first, queries)
    seen = _image_for_tokens(transformer.final_attn_token_to_image, queries + first, keys, positions)
    return transformer.layer_norm_final_attn(queries + seen), keys


def _some(prompts: int, image: Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Prompts that are worked on together, and the parts that their image tokens (p, N, C) are taken in: many prompts
    where an image has few tokens, one prompt and some tokens where it has many."""
    tokens, block = image.shape[1], BLOCK // image.shape[2]
    together = max(1, block // tokens)
    parts = [slice(start, start + block) for start in range(0, tokens, block)]
    for first in range(0, prompts, together):
        yield slice(first, first + together), parts


def _among(attention: Any, tokens: Tensor, values: Tensor) -> Tensor:
    return attention(query=tokens[:, None], key=tokens[:, None], value=values[:, None])[0][:, 0]


def _heads(attention: Any, tokens: Tensor) -> Tensor:
    """(p, T, heads * d) to (heads, p * T, d)."""
    return tokens.flatten(0, 1).unflatten(-1, (attention.num_attention_heads, -1)).transpose(0, 1)


def _output(attention: Any) -> Any:
    return attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj


def _image_for_tokens(attention: Any, tokens: Tensor, image: Tensor, positions: Tensor) -> Tensor:
    """What the prompt tokens (p, T, C) find in the image tokens (p or 1, N, C): (p, T, C)."""
    prompts, count = tokens.shape[:2]
    heads = attention.num_attention_heads
    queries = _heads(attention, attention.q_proj(tokens))
    if len(image) == 1:
        keys = _heads(attention, attention.k_proj(image + positions))
        values = _heads(attention, attention.v_proj(image))
        found = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
    else:
        folded = (queries * attention.scaling) @ attention.k_proj.weight.unflatten(0, (heads, -1))  # (heads, p * T, C)
        folded = folded.unflatten(1, (prompts, count)).transpose(0, 1).flatten(1, 2)  # (p, heads * T, C)
        context = torch.empty_like(folded)
        for some, parts in _some(prompts, image):
            logits = torch.cat([folded[some] @ (image[some, part] + positions[part]).mT for part in parts], -1)
            torch.bmm(torch.softmax(logits, -1, out=logits), image[some], out=context[some])
        context = context.unflatten(1, (heads, count)).transpose(0, 1).flatten(1, 2)  # (heads, p * T, C)
        found = context @ attention.v_proj.weight.unflatten(0, (heads, -1)).mT
        found = found + attention.v_proj.bias.view(heads, 1, -1)
    return _output(attention)(found.transpose(0, 1).flatten(1)).unflatten(0, (prompts, count))


def _tokens_for_image(layer: Any, image: Tensor, positions: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """The image tokens (p or 1, N, C) after looking at the prompt tokens (p, T, C), normalised: (p, N, C)."""
    attention = layer.cross_attn_image_to_token
    prompts, count = tokens.shape[:2]
    heads = attention.num_attention_heads
    output = _output(attention)
    keys = _heads(attention, attention.k_proj(tokens) * attention.scaling)
    folded = keys @ attention.q_proj.weight.unflatten(0, (heads, -1))
    bias = keys @ attention.q_proj.bias.view(heads, -1, 1)
    answers = _heads(attention, attention.v_proj(values)) @ output.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
    answers = answers + output.bias / heads  # each head's weights sum to 1
    folded, bias, answers = (
        part.unflatten(1, (prompts, count)).transpose(0, 1).flatten(1, 2) for part in (folded, bias, answers)
    )
    seen = image.expand(prompts, -1, -1)
    found = torch.empty(seen.shape) if len(image) == 1 else image  # in place, but for what prompts share
    for some, parts in _some(prompts, seen):
        for part in parts:
            placed = seen[some, part] + positions[part]
            logits = torch.bmm(folded[some], placed.mT).add_(bias[some])  # (prompts, heads * T, tokens)
            logits = logits.unflatten(1, (heads, count))
            weights = torch.softmax(logits, 2, out=logits).flatten(1, 2)
            mixed = torch.bmm(weights.mT, answers[some], out=placed).add_(seen[some, part])
            found[some, part] = layer.layer_norm4(mixed)
    return found


def _upscaled(
    decoder: Any, image: Tensor, weights: Tensor, fine: tuple[Tensor, ...], size: torch.Size, made: Tensor
) -> Tensor:
    """Image tokens (p, h * w, C) and mask weights (p, m, C / 8) to logits (p, m, 4 h, 4 w); 0 for prompts that `made`
    (p,) leaves out, with no others beside them."""
    height, width = size
    one, two = (  # a token's 2 x 2 pixels side by side
        (conv.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), conv.bias.repeat(4))
        for conv in (decoder.upscale_conv1, decoder.upscale_conv2)
    )
    norm = decoder.upscale_layer_norm
    finest, finer = (_patches(part, height, width) for part in fine) if fine else (None, None)
    prompts, masks_each = weights.shape[:2]
    logits = image.new_zeros(prompts, masks_each, 4 * height, 4 * width)
    for some, parts in _some(prompts, image):
        if not made[some].any():
            continue
        count = len(made[some])
        patches = image.new_empty(count, masks_each, height * width, 16)
        for part in parts:
            small = product(image[some, part], *one).unflatten(-1, (4, -1)).flatten(1, 2)
            if finer is not None:
                small += (finer if len(finer) == 1 else finer[some])[:, part].flatten(1, 2)
            small = F.gelu(F.layer_norm(small, small.shape[-1:], norm.weight, norm.bias, norm.eps))
            large = product(small, *two, gelu=finest is None).unflatten(-1, (4, -1)).flatten(1, 2)
            if finest is not None:
                large += (finest if len(finest) == 1 else finest[some])[:, part].flatten(1, 2)
                large = F.gelu(large)
            patches[:, :, part] = (weights[some] @ large.mT).unflatten(-1, (-1, 16))
        # Two neighbours are moved as if one number, in a tenth of the time.
        pairs = patches.view(torch.float64).view(count, masks_each, height, width, 2, 2, 2).permute(0, 1, 2, 4, 6, 3, 5)
        logits[some].view(torch.float64).view(pairs.shape).copy_(pairs)
    return logits


def _patches(maps: Tensor, height: int, width: int) -> Tensor:
    """(n, c, k h, k w) to (n, h * w, k * k, c), a token's pixels in the order in which upscaling makes them."""
    count, channels = maps.shape[:2]
    levels = (maps.shape[-1] // width).bit_length() - 1
    split = maps.reshape(count, channels, height, *[2] * levels, width, *[2] * levels)
    pairs = [axis for level in range(levels) for axis in (3 + level, 4 + levels + level)]
    return split.permute(0, 2, 3 + levels, *pairs, 1).reshape(count, height * width, -1, channels)
