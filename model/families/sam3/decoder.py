"""A faster DETR decoder of SAM 3."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3DetrDecoder

LOG_BASE = 8.0  # scale of the distances, and base of their logarithm, as in transformers


class FastDetrDecoder(Sam3DetrDecoder):
    """SAM 3's DETR decoder, which computes the position bias of the attention to the image with fewer copies.

    transformers adds the terms of rows and columns in the order (queries, height, width, heads) and then copies the sum
    to the order (heads, queries, height, width). This class reorders the terms, which are small, and not the sum.

    Args:
        original: the decoder to replace. Its parameters, submodules and settings are shared, not copied.
    """

    def __init__(self, original: nn.Module) -> None:
        nn.Module.__init__(self)  # not the class's own __init__, which would create new weights
        vars(self).update(vars(original))

    def _get_rpb_matrix(self, reference_boxes: Tensor, spatial_shape: Any) -> Tensor:
        """Compute the position bias.

        Args:
            reference_boxes: (n, queries, 4) centre and size, from 0 to 1.
            spatial_shape: height and width of the image in tokens.

        Returns:
            (n, heads, queries, height * width).
        """
        center, size = reference_boxes.split(2, -1)
        corners = torch.stack([center - size / 2, center + size / 2], -1)  # (n, queries, x and y, 2)
        terms = []
        for axis, (embed, length) in enumerate(
            ((self.box_rpb_embed_x, spatial_shape[1]), (self.box_rpb_embed_y, spatial_shape[0]))
        ):
            places = torch.arange(int(length), device=corners.device, dtype=corners.dtype) / int(length)
            distances = (places[:, None] - corners[:, :, axis, None]) * LOG_BASE  # (n, queries, length, 2)
            logarithms = distances.sign() * torch.log2(distances.abs() + 1.0) / math.log2(LOG_BASE)
            terms.append(embed(logarithms).permute(0, 3, 1, 2).contiguous())  # (n, heads, queries, length)
        by_column, by_row = terms
        return torch.flatten(by_row[..., None] + by_column[..., None, :], 3)
