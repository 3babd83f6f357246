"""Attention of image encoders on a GPU: all windows of a batch in one call, and no position bias in memory.

On a CPU, `windows` and `vit` are faster, because they keep data in the processor's cache. This module runs on every
device, so that its results can be compared with those of transformers on a CPU. It has not been measured on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import max_pool

ALIGNMENT = 8  # torch's fused attention on a GPU needs a number of channels per head that is a multiple of this


def attend_windows(
    normed: Tensor, attention: Any, window: tuple[int, int], stride: tuple[int, int] | None = None
) -> Tensor:
    """Compute the attention within each window of a batch of images, without the projection of the output.

    Args:
        normed: (n, height, width, channels) normalised tokens.
        attention: transformers' attention module of SAM, SAM-HQ or SAM 2.
        window: (height, width) of a window. Images are padded with zeros to whole windows.
        stride: (height, width) of the cells by which queries are max-pooled; None for no pooling.

    Returns:
        (n, height / stride, width / stride, channels of the attention). Both sides are rounded up.
    """
    high, wide = window
    images, height, width = normed.shape[:3]
    down, across = -(-height // high), -(-width // wide)
    padded = F.pad(normed, (0, 0, 0, across * wide - width, 0, down * high - height))
    heads = attention.num_attention_heads
    qkv = attention.qkv(padded).view(images, down, high, across, wide, 3, heads, -1)
    query, key, value = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3)  # (windows, heads, high, wide, d)
    if stride:
        query = max_pool(query, stride)
    if getattr(attention, "use_rel_pos", False):
        query, key = fold_positions(query, key, attention)
    rows, columns = query.shape[2:4]
    queries, keys, values = (part.flatten(2, 3) for part in (query, key, value))
    attended = F.scaled_dot_product_attention(queries, keys, values, scale=attention.scale)
    by_place = attended.view(images, down, across, heads, rows, columns, -1).permute(0, 1, 4, 2, 5, 3, 6)
    whole = by_place.reshape(images, down * rows, across * columns, -1)
    first, second = stride or (1, 1)
    return whole[:, : -(-height // first), : -(-width // second)]


def fold_positions(query: Tensor, key: Tensor, attention: Any) -> tuple[Tensor, Tensor]:
    """Extend queries and keys so that their product contains SAM's relative-position bias.

    The bias of a query and a key is the sum of a term for the key's row and a term for the key's column. Both terms
    depend on the query. The extended query holds the terms of all rows and columns. The extended key selects its own
    row and column by a one in each part. So the bias is a part of the product, and the array (queries x keys) of all
    biases, 4096 x 4096 per head in a global layer, never exists.

    Args:
        query: (windows, heads, high, wide, d).
        key: the same shape.
        attention: transformers' attention module with relative positions.

    Returns:
        Both with d + high + wide channels, rounded up to a multiple of ALIGNMENT with zeros.
    """
    high, wide, channels = query.shape[2:]
    rows = attention.get_rel_pos(high, high, attention.rel_pos_h)
    columns = attention.get_rel_pos(wide, wide, attention.rel_pos_w)
    # The attention multiplies the whole product by the scale, and the bias is not scaled.
    row_bias = torch.einsum("bhyxd,ykd->bhyxk", query, rows) / attention.scale
    column_bias = torch.einsum("bhyxd,xkd->bhyxk", query, columns) / attention.scale
    own_row = torch.eye(high, dtype=key.dtype, device=key.device)[:, None].expand(high, wide, high)
    own_column = torch.eye(wide, dtype=key.dtype, device=key.device)[None].expand(high, wide, wide)
    own = torch.cat([own_row, own_column], -1).expand(*key.shape[:2], -1, -1, -1)
    padding = 0, -(channels + high + wide) % ALIGNMENT
    extended = torch.cat([query, row_bias, column_bias], -1), torch.cat([key, own], -1)
    return F.pad(extended[0], padding), F.pad(extended[1], padding)
