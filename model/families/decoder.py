"""Faster mask decoders of SAM and SAM 2 on a CPU, with the weights of transformers' decoders.

The functions need far less arithmetic than transformers' mask decoders. They add numbers in another order, so the
results differ from those of transformers by rounding only. The following describes p prompts of T tokens each, on an
image of N = 4096 tokens with C = 256 channels. The attention has 8 heads.

- In the first layer, all prompts without a mask input attend to the same image tokens. So the keys and values of the
  image tokens are computed once instead of p times.
- Later layers, and for few prompts also the first, do not multiply the N image tokens x by the projection W_k of the
  keys. They multiply the few queries q of the prompts by W_k, because (q W_k) x = q (W_k x). The same change of order
  removes the projections of the values, of the queries and of the output from the image tokens. Each of the four
  products then has 8 T columns (a column for each head and prompt token) instead of 128. The bias of the keys adds the
  same number to all logits of a query. A softmax does not depend on this number, so the code leaves out the bias.
- The upscaling kernels (2 x 2, stride 2) do not overlap, so each image token yields its own 4 x 4 pixels. Three small
  matrix products compute these pixels, and only for masks that are needed.

The code processes image tokens in blocks that fit into the processor's cache. Measurements are in docs/performance.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, unflatten

from .mask_logits import blocks, upscale_logits

MAX_TOKENS = 24  # tokens of a prompt; for more tokens, transformers' decoder needs less arithmetic


def predict_masks(
    decoder: Any,
    image: Tensor,
    positions: Tensor,
    sparse: Tensor | None,
    dense: Tensor,
    multimask_output: bool,
    high_resolution: tuple[Tensor, ...] = (),
    min_score: float = -math.inf,
) -> tuple[Tensor, Tensor]:
    """Predict the masks of p prompts with a SamMaskDecoder or Sam2MaskDecoder.

    The faster functions of this module run on a CPU in float32 without gradients, for prompts of at most MAX_TOKENS
    tokens. In all other cases, transformers' own decoder runs.

    Args:
        decoder: transformers' mask decoder.
        image: (p, C, h, w) feature maps. If all prompts are on one image, this is `expand` of one map, without a copy.
        positions: (1, C, h, w) position embedding of the image.
        sparse: (p, 1, tokens, C) embedded points and boxes, or None.
        dense: (p, C, h, w) embedded mask inputs.
        multimask_output: whether to return 3 masks per prompt or 1.
        high_resolution: SAM 2's larger feature maps, (p, C / 8, 4 h, 4 w) and (p, C / 4, 2 h, 2 w).
        min_score: if all three scores of a prompt are at most `min_score`, its logits may be zeros.

    Returns:
        (p, m, 4 h, 4 w) logits and (p, m) predicted IoU.
    """
    prompts, tokens = len(dense), join_tokens(decoder, len(dense), sparse)
    if not has_fast_path(image, tokens):
        features = {"high_resolution_features": list(high_resolution)} if high_resolution else {}
        outputs = decoder(image, positions.expand_as(image), sparse, dense, multimask_output, **features)
        return outputs[0][:, 0], outputs[1][:, 0]
    one_image = image.stride(0) == 0 or prompts == 1
    if one_image:
        high_resolution = tuple(maps[:1] for maps in high_resolution)
        if dense.stride(0) == 0 or prompts == 1:
            image, dense = image[:1], dense[:1]
    image_tokens = to_tokens(image + dense)
    queries, keys = two_way_transformer(decoder.transformer, tokens, image_tokens, to_tokens(positions)[0])

    first_mask = 1 + hasattr(decoder, "obj_score_token")
    mask_tokens = queries[:, first_mask : first_mask + decoder.num_mask_tokens]
    scores = decoder.iou_prediction_head(queries[:, first_mask - 1])
    # SAM 2 replaces an unstable single mask by the best of the other three masks.
    with_fallback = not multimask_output and getattr(decoder, "dynamic_multimask_via_stability", False)
    chosen = slice(1, None) if multimask_output else slice(0, None if with_fallback else 1)
    heads = decoder.output_hypernetworks_mlps[chosen]
    weights = torch.stack([head(mask_tokens[:, chosen][:, i]) for i, head in enumerate(heads)], 1)
    scores = scores[:, chosen]
    if with_fallback:
        best = scores[:, 1:].argmax(1) + 1
        candidates = torch.stack([torch.zeros_like(best), best], 1)
        weights, scores = weights.take_along_dim(candidates[..., None], 1), scores.gather(1, candidates)
    needed = (scores > min_score).any(1) if multimask_output else torch.ones(prompts, dtype=torch.bool)
    logits = upscale_logits(decoder, keys, weights, high_resolution, image.shape[-2:], needed)
    if with_fallback:
        logits, scores = decoder._dynamic_multimask_via_stability(logits[:, None], scores[:, None])
        return logits[:, 0], scores[:, 0]
    return logits, scores


def join_tokens(decoder: Any, prompts: int, sparse: Tensor | None) -> Tensor:
    """Return the decoder's output tokens and the prompts' tokens (p, 1, tokens, C) as (p, T, C)."""
    embeddings = [getattr(decoder, name, None) for name in ("obj_score_token", "iou_token", "mask_tokens")]
    output = torch.cat([embedding.weight for embedding in embeddings if embedding is not None])
    parts = [output.expand(prompts, -1, -1)] + ([] if sparse is None else [sparse[:, 0]])
    return torch.cat(parts, 1)


def has_fast_path(image: Tensor, tokens: Tensor) -> bool:
    """Return whether this module's functions support an image (p, C, h, w) and tokens (p, T, C)."""
    is_fast = image.device.type == "cpu" and image.dtype == torch.float32 and not torch.is_grad_enabled()
    return is_fast and tokens.shape[1] <= MAX_TOKENS


def to_tokens(maps: Tensor) -> Tensor:
    """Reorder (n, C, h, w) to (n, h * w, C)."""
    return maps.flatten(2).mT.contiguous()


def two_way_transformer(
    transformer: Any, prompt_tokens: Tensor, image: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Let prompt tokens and image tokens attend to each other.

    Args:
        transformer: the decoder's SamTwoWayTransformer or Sam2TwoWayTransformer.
        prompt_tokens: (p, T, C).
        image: (p or 1, N, C) image tokens.
        positions: (N, C) position embedding of the image tokens.

    Returns:
        (p, T, C) prompt tokens and (p, N, C) image tokens.
    """
    queries, keys = prompt_tokens, image
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            queries = _self_attention(layer.self_attn, queries, queries)
        else:
            queries = queries + _self_attention(layer.self_attn, queries + prompt_tokens, queries)
        queries = layer.layer_norm1(queries)
        attended = _attend_to_image(layer.cross_attn_token_to_image, queries + prompt_tokens, keys, positions)
        queries = layer.layer_norm2(queries + attended)
        queries = layer.layer_norm3(queries + layer.mlp(queries))
        keys = _attend_to_prompts(layer, keys, positions, queries + prompt_tokens, queries)
    attended = _attend_to_image(transformer.final_attn_token_to_image, queries + prompt_tokens, keys, positions)
    normed: Tensor = transformer.layer_norm_final_attn(queries + attended)
    return normed, keys


def _self_attention(attention: Any, tokens: Tensor, values: Tensor) -> Tensor:
    """Let the tokens (p, T, C) of each prompt attend to one another. Returns (p, T, C)."""
    attended: Tensor = attention(query=tokens[:, None], key=tokens[:, None], value=values[:, None])[0][:, 0]
    return attended


def _split_heads(attention: Any, tokens: Tensor) -> Tensor:
    """Reorder (p, T, heads * d) to (heads, p * T, d)."""
    return unflatten(tokens.flatten(0, 1), -1, (attention.num_attention_heads, -1)).transpose(0, 1)


def _by_prompt(per_head: Tensor, prompts: int) -> Tensor:
    """Reorder (heads, p * T, n) to (p, heads * T, n)."""
    return unflatten(per_head, 1, (prompts, -1)).transpose(0, 1).flatten(1, 2)


def _by_head(per_prompt: Tensor, heads: int) -> Tensor:
    """Reorder (p, heads * T, n) to (heads, p * T, n)."""
    return unflatten(per_prompt, 1, (heads, -1)).transpose(0, 1).flatten(1, 2)


def _output_projection(attention: Any) -> Any:
    """Return the output projection, which has different names in SAM and SAM 2."""
    return attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj


def _attend_to_image(attention: Any, tokens: Tensor, image: Tensor, positions: Tensor) -> Tensor:
    """Let prompt tokens (p, T, C) attend to image tokens (p or 1, N, C) with positions (N, C). Returns (p, T, C)."""
    prompts, count = tokens.shape[:2]
    heads, images = attention.num_attention_heads, len(image)
    queries = _split_heads(attention, attention.q_proj(tokens))
    if images == 1 and prompts * count * heads > attention.internal_dim:
        keys = _split_heads(attention, attention.k_proj(image + positions))
        values = _split_heads(attention, attention.v_proj(image))
        attended = F.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]
    else:
        key_weights = unflatten(attention.k_proj.weight, 0, (heads, -1))
        folded = _by_prompt((queries * attention.scaling) @ key_weights, images)  # (images, heads * queries, C)
        context = torch.empty_like(folded)
        for block, parts in blocks(images, image):
            logits = torch.cat([folded[block] @ (image[block, part] + positions[part]).mT for part in parts], -1)
            torch.bmm(torch.softmax(logits, -1, out=logits), image[block], out=context[block])
        value_weights = unflatten(attention.v_proj.weight, 0, (heads, -1))
        attended = _by_head(context, heads) @ value_weights.mT
        attended = attended + attention.v_proj.bias.view(heads, 1, -1)
    projected = _output_projection(attention)(attended.transpose(0, 1).flatten(1))
    return unflatten(projected, 0, (prompts, count))


def _attend_to_prompts(layer: Any, image: Tensor, positions: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    """Let image tokens (p or 1, N, C) attend to prompt tokens (p, T, C), and normalise them. Returns (p, N, C).

    Image tokens of p prompts are changed in place. Image tokens that all prompts share, (1, N, C), are not changed.
    """
    attention = layer.cross_attn_image_to_token
    prompts, count = tokens.shape[:2]
    heads = attention.num_attention_heads
    output = _output_projection(attention)
    keys = _split_heads(attention, attention.k_proj(tokens) * attention.scaling)
    folded = keys @ unflatten(attention.q_proj.weight, 0, (heads, -1))
    bias = keys @ attention.q_proj.bias.view(heads, -1, 1)
    output_weights = unflatten(output.weight, 1, (heads, -1)).permute(1, 2, 0)
    answers = _split_heads(attention, attention.v_proj(values)) @ output_weights
    # Each head's weights sum to 1, so the sum over the heads contains the bias exactly once.
    answers = answers + output.bias / heads
    folded, bias, answers = (_by_prompt(part, prompts) for part in (folded, bias, answers))
    image_tokens = image.expand(prompts, -1, -1)
    normed = torch.empty(image_tokens.shape) if len(image) == 1 else image
    for block, parts in blocks(prompts, image_tokens):
        for part in parts:
            placed = image_tokens[block, part] + positions[part]
            logits = torch.bmm(folded[block], placed.mT).add_(bias[block])  # (prompts, heads * T, tokens)
            logits = unflatten(logits, 1, (heads, count))
            weights = torch.softmax(logits, 2, out=logits).flatten(1, 2)
            mixed = torch.bmm(weights.mT, answers[block], out=placed).add_(image_tokens[block, part])
            normed[block, part] = layer.layer_norm4(mixed)
    return normed
