"""Decode the objects of one frame of a video with SAM 2's mask decoder: a mask, a token and a score per object."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .decoder import has_fast_path, join_tokens, to_tokens, two_way_transformer
from .mask_logits import upscale_logits


def predict_objects(
    decoder: Any,
    image: Tensor,
    positions: Tensor,
    sparse: Tensor,
    dense: Tensor,
    multimask_output: bool,
    high_resolution: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Predict the best mask of each of p objects. On a CPU, only the logits of the best mask are computed.

    Args:
        decoder: transformers' Sam2VideoMaskDecoder, or the decoder of a related model.
        image: (p, C, h, w) feature maps, one per object.
        positions: (1, C, h, w) position embedding of the image.
        sparse: (p, 1, tokens, C) embedded points.
        dense: (p, C, h, w) embedded masks.
        multimask_output: whether the best of 3 masks is chosen by its predicted IoU, or the single mask is used.
        high_resolution: the larger feature maps of the frame, (1, C / 8, 4 h, 4 w) and (1, C / 4, 2 h, 2 w).

    Returns:
        (p, 4 h, 4 w) logits, (p, C) mask token, and (p,) logit of the object's visibility.
    """
    objects = len(image)
    tokens = join_tokens(decoder, objects, sparse)
    if not has_fast_path(image, tokens):
        features = [maps.expand(objects, -1, -1, -1) for maps in high_resolution]
        outputs = decoder(
            image, positions.expand_as(image), sparse, dense, multimask_output, high_resolution_features=features
        )
        masks, scores, mask_tokens, visible = (part[:, 0] for part in outputs)
        best = scores.argmax(1)
        place = torch.arange(objects, device=image.device)
        return masks[place, best], mask_tokens[place, best], visible[:, 0]
    queries, keys = two_way_transformer(decoder.transformer, tokens, to_tokens(image + dense), to_tokens(positions)[0])
    visible = decoder.pred_obj_score_head(queries[:, 0])[:, 0]
    scores = decoder.iou_prediction_head(queries[:, 1])
    mask_tokens = queries[:, 2 : 2 + decoder.num_mask_tokens]
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(mask_tokens[:, i]) for i, head in enumerate(heads)], 1)
    best = scores[:, 1:].argmax(1) + 1
    single = torch.zeros_like(best)
    # SAM 2 replaces an unstable single mask by the best of the other three masks, but keeps the single mask's token.
    with_fallback = not multimask_output and decoder.dynamic_multimask_via_stability
    chosen = best if multimask_output else single
    candidates = torch.stack([single, best], 1) if with_fallback else chosen[:, None]
    logits = upscale_logits(
        decoder,
        keys,
        weights.take_along_dim(candidates[..., None], 1),
        high_resolution,
        image.shape[-2:],
        torch.ones(objects, dtype=torch.bool),
    )
    if with_fallback:
        logits, _ = decoder._dynamic_multimask_via_stability(logits[:, None], scores.gather(1, candidates)[:, None])
        logits = logits[:, 0]
    return logits[:, 0], mask_tokens.take_along_dim(chosen[:, None, None], 1)[:, 0], visible
