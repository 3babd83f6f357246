"""SAM 3's detector: find the instances of concepts in the feature maps of an image.

The functions use the modules of transformers' Sam3Model. They compute what `Sam3Model.forward` computes for each
concept, with less work:

- The first self-attention among the image's tokens does not depend on the concept. It is computed once for all concepts
  of a batch.
- Only the masks of instances whose score exceeds the threshold are computed. If a concept has no instance, the pixel
  decoder, which takes a third of the time, is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .text import join_prompts

EPSILON = 1e-3  # smallest probability whose logit is finite, as in transformers


class Detections(NamedTuple):
    """The n instances of one concept, in descending order of score.

    Attributes:
        masks: (n, h, w) probabilities that a pixel belongs to the instance.
        boxes: (n, 4) x1, y1, x2, y2, relative to the size of the image.
        scores: (n,) 0 to 1.
    """

    masks: Tensor
    boxes: Tensor
    scores: Tensor


def position_embedding(model: Any, image: Tensor) -> Tensor:
    """Return the position embedding of a feature map, in the map's shape (1, C, h, w)."""
    embedding: Tensor = model.geometry_encoder.position_encoding(image.shape, image.device, image.dtype)
    return embedding


def detect(model: Any, features: Sequence[Tensor], prompts: Sequence[Tensor], threshold: float) -> list[Detections]:
    """Find the instances of concepts in one image.

    Args:
        model: a Sam3Model or Sam3LiteTextModel.
        features: the detector's feature maps of the image, each (1, C, height, width), in ascending order of strides.
        prompts: the prompt of each concept, (tokens, C): the embeddings of its text and its examples.
        threshold: the score that instances exceed.

    Returns:
        The instances of each concept.
    """
    prompt, mask = join_prompts(prompts)
    image, positions = (
        maps.flatten(2).mT.contiguous() for maps in (features[-1], position_embedding(model, features[-1]))
    )
    # For padding, a large negative number is added to the logits of the attention.
    bias = None if mask is None else torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    for layer in model.detr_encoder.layers:
        image = _fuse(layer, image, positions, prompt, bias)
    decoded = model.detr_decoder(
        vision_features=image,
        text_features=prompt,
        vision_pos_encoding=positions,
        text_mask=mask,
        spatial_shapes=torch.tensor([features[-1].shape[-2:]], device=image.device),
    )
    queries = decoded.intermediate_hidden_states[-1]
    logits = model.dot_product_scoring(queries[None], prompt, mask)[0, ..., 0]
    scores = logits.sigmoid() * decoded.presence_logits[-1].sigmoid()
    boxes = _boxes(decoded.reference_boxes[-1], model.detr_decoder.box_head(queries))
    return [
        _select(model, features, threshold, queries[i], scores[i], boxes[i], image[i : i + 1], tokens[None])
        for i, tokens in enumerate(prompts)
    ]


def _fuse(layer: Any, image: Tensor, positions: Tensor, prompt: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a layer of the DETR encoder.

    Args:
        layer: a Sam3DetrEncoderLayer.
        image: (n or 1, N, C) tokens of the image.
        positions: (1, N, C) position embedding.
        prompt: (n, T, C) prompts.
        bias: (n, 1, 1, T) bias of the attention to the prompts, or None.

    Returns:
        (n, N, C) tokens of the image.
    """
    normed = layer.layer_norm1(image)
    placed = normed + positions
    image = image + layer.self_attn(query=placed, key=placed, value=normed)[0]
    query = layer.layer_norm2(image).expand(len(prompt), -1, -1)
    image = image + layer.cross_attn(query=query, key=prompt, value=prompt, attention_mask=bias)[0]
    fused: Tensor = image + layer.mlp(layer.layer_norm3(image))
    return fused


def _boxes(reference: Tensor, offsets: Tensor) -> Tensor:
    """Add offsets (..., 4) to reference boxes (..., 4), centre and size from 0 to 1. Returns x1, y1, x2, y2."""
    logits = torch.log(reference.clamp(min=EPSILON) / (1 - reference).clamp(min=EPSILON))
    center, size = (logits + offsets).sigmoid().split(2, -1)
    return torch.cat([center - size / 2, center + size / 2], -1)


def _select(
    model: Any,
    features: Sequence[Tensor],
    threshold: float,
    queries: Tensor,
    scores: Tensor,
    boxes: Tensor,
    image: Tensor,
    prompt: Tensor,
) -> Detections:
    """Return the instances of one concept whose score exceeds the threshold.

    Args:
        model: as in `detect`.
        features: as in `detect`.
        threshold: the score that instances exceed.
        queries: (q, C) decoded queries.
        scores: (q,).
        boxes: (q, 4).
        image: (1, N, C) tokens of the image from the DETR encoder.
        prompt: (1, T, C) prompt.
    """
    scores, order = scores.sort(descending=True, stable=True)
    order = order[: int((scores > threshold).sum())]
    if len(order):
        masks = _masks(model.mask_decoder, features, queries[order], image, prompt)
    else:
        masks = image.new_zeros(0, *features[0].shape[-2:])
    return Detections(masks, boxes[order], scores[: len(order)])


def _masks(decoder: Any, features: Sequence[Tensor], queries: Tensor, image: Tensor, prompt: Tensor) -> Tensor:
    """Compute the masks (n, h, w) of queries (n, C), as probabilities. Other arguments are those of `_select`."""
    normed = decoder.prompt_cross_attn_norm(image)
    image = image + decoder.prompt_cross_attn(query=normed, key=prompt, value=prompt)[0]
    pixels = image.mT.reshape(features[-1].shape)
    *finer, _ = features
    pixel_decoder = decoder.pixel_decoder
    for maps, convolution, norm in zip(reversed(finer), pixel_decoder.conv_layers, pixel_decoder.norms, strict=False):
        pixels = F.interpolate(pixels, maps.shape[-2:], mode="nearest").add_(maps)
        pixels = norm(convolution(pixels)).relu_()
    # The projection of all pixels, (e W) x + e b, is moved to the few queries e.
    projection = decoder.instance_projection
    embedded = decoder.mask_embedder(queries)
    weights, bias = embedded @ projection.weight[..., 0, 0], embedded @ projection.bias
    logits = torch.addmm(bias[:, None], weights, pixels[0].flatten(1))
    return logits.sigmoid_().view(-1, *pixels.shape[-2:])
