"""Embed the exemplar boxes of a concept with SAM 3's geometry encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def embed_examples(encoder: Any, boxes: Tensor, labels: Tensor, image: Tensor, positions: Tensor) -> Tensor:
    """Embed the examples of one concept.

    transformers' geometry encoder does the same, but needs torchvision.

    Args:
        encoder: `model.geometry_encoder` of a Sam3Model.
        boxes: (b, 4) float32 centre x, centre y, width and height, relative to the size of the image.
        labels: (b,) int64: 1 for an example, 0 for a counter-example.
        image: (1, C, h, w) feature map of the image.
        positions: (1, C, h, w) position embedding of the feature map.

    Returns:
        (1, b + 1, C) embeddings of the boxes, and one of all boxes together.
    """
    height, width = image.shape[-2:]
    normed = encoder.vision_layer_norm(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    center, size = boxes[:, :2], boxes[:, 2:]
    corners = torch.cat([center - size / 2, center + size / 2], 1)
    corners = corners * corners.new_tensor([width, height, width, height])
    pooled = encoder.boxes_pool_project(roi_align(normed[0], corners, encoder.roi_size)).flatten(1)
    position_x, position_y = encoder.position_encoding.encode_1d_positions(center[:, 0], center[:, 1])
    placed = encoder.boxes_pos_enc_project(torch.cat([position_y, position_x, size.flip(1)], 1))
    embedded = encoder.label_embed(labels) + encoder.boxes_direct_project(boxes) + pooled + placed
    tokens = encoder.prompt_layer_norm(encoder.final_proj(torch.cat([embedded, encoder.cls_embed.weight])[None]))
    flat, flat_positions = (maps.flatten(2).mT for maps in (image, positions))
    for layer in encoder.layers:
        tokens = layer(tokens, vision_feats=flat, vision_pos_encoding=flat_positions, prompt_mask=None)
    embeddings: Tensor = encoder.output_layer_norm(tokens)
    return embeddings


def roi_align(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Pool the features in boxes, as `torchvision.ops.roi_align` does by default (He et al. 2017, "Mask R-CNN").

    A box is divided into side x side cells. The value of a cell is the mean of bilinear samples, about one per pixel.
    The weights of a sample are the product of its weights along x and along y. So the mean is a product of matrices.

    Args:
        image: (C, h, w) features.
        boxes: (b, 4) x1, y1, x2, y2 in pixels of the features.
        side: number of cells along each side of a box.

    Returns:
        (b, C, side, side) means.
    """
    height, width = image.shape[-2:]
    pooled = [
        _sampling_weights(y1, y2, side, height) @ image @ _sampling_weights(x1, x2, side, width).T
        for x1, y1, x2, y2 in boxes
    ]
    return torch.stack(pooled)


def _sampling_weights(start: Tensor, end: Tensor, cells: int, length: int) -> Tensor:
    """Return the weights with which the pixels of a line contribute to the cells of an interval.

    Args:
        start: start of the interval, in pixels.
        end: end of the interval, in pixels. An interval that is shorter than 1 pixel is extended.
        cells: number of cells of equal size.
        length: number of pixels of the line.

    Returns:
        (cells, length) float32.
    """
    cell = (end - start).clamp(min=1) / cells
    samples = int(cell.ceil())  # per cell
    offsets = (torch.arange(samples, device=start.device) + 0.5) * cell / samples
    places = (start + torch.arange(cells, device=start.device) * cell)[:, None] + offsets  # (cells, samples)
    inside = (places >= -1) & (places <= length)
    places = places.clamp(0, length - 1)
    low = places.floor().long()
    high = (low + 1).clamp(max=length - 1)
    upper = places - low
    weights = places.new_zeros(cells, length)
    for index, weight in ((low, 1 - upper), (high, upper)):
        weights.scatter_add_(1, index, weight * inside / samples)
    return weights
