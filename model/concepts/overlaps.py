"""Remove masks that overlap better masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def distinct_masks(inside: Tensor, order: Sequence[int], max_overlap: float, of_smaller: bool = False) -> list[int]:
    """Remove masks that overlap a better mask, as in non-maximum suppression.

    Args:
        inside: (n, h, w) bool masks.
        order: indices of masks, the best mask first.
        max_overlap: a mask is removed if its overlap with a kept mask is larger.
        of_smaller: whether overlap is the intersection as a share of the smaller mask. By default, it is the IoU.

    Returns:
        The indices of the kept masks, in the same order. Empty masks are not kept.

    Example:
        >>> masks = torch.tensor([[[True, False, False]], [[True, True, True]], [[False, True, False]]])
        >>> distinct_masks(masks, [1, 2], 0.5), distinct_masks(masks, [1, 2], 0.5, of_smaller=True)
        ([1, 2], [1])
    """
    keep: list[int] = []
    areas = inside.sum((1, 2))
    for i in order:
        shared = (inside[keep] & inside[i]).sum((1, 2))
        whole = torch.minimum(areas[keep], areas[i]) if of_smaller else areas[keep] + areas[i] - shared
        if areas[i] and not (shared > max_overlap * whole).any():
            keep.append(i)
    return keep
