"""Compute masks on a GPU, so that run lengths and not pixels are copied to the host.

The functions run on every device, so that their results can be compared with those of `upscaling` on a CPU. They have
not been measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import EncodedMask, compress
from .upscaling import Step

CHUNK = 2**26  # pixels upscaled at a time, 256 MiB of float32


def upscale(logits: Tensor, steps: Sequence[Step]) -> Tensor:
    """Upscale (m, h, w) logits to (m, height, width) by the steps of `Family.upscaling`."""
    maps = logits[None].float()
    for (height, width), larger in steps:
        maps = F.interpolate(maps[..., :height, :width], larger, mode="bilinear", align_corners=False)
    return maps[0]


def encode_masks(
    logits: Tensor, steps: Sequence[Step], offset: float | None = None
) -> Iterator[tuple[EncodedMask, float]]:
    """Upscale logits, compare them with 0, and encode the masks as run lengths.

    Args:
        logits: (m, h, w) low-resolution logits.
        steps: crops and scalings, as `Family.upscaling` returns them.
        offset: distance from 0 of the two thresholds of the stability score. None computes no stability scores.

    Yields:
        Each mask and its stability score: the IoU of the masks above `offset` and above `-offset`, 0 if both are empty,
        and 1 without `offset`.
    """
    height, width = steps[-1][1]
    step = max(1, CHUNK // (height * width))
    for start in range(0, len(logits), step):
        upscaled = upscale(logits[start : start + step], steps)
        stability = torch.ones(len(upscaled))
        if offset is not None:
            smaller, larger = ((upscaled > threshold).sum((1, 2)) for threshold in (offset, -offset))
            stability = (smaller / larger.clamp(min=1)).cpu()
        yield from zip(_encode(upscaled > 0), stability.tolist(), strict=True)


def _encode(masks: Tensor) -> list[EncodedMask]:
    """Encode (m, height, width) bool masks."""
    height, width = masks.shape[1:]
    by_column = masks.mT.flatten(1)
    changes = torch.empty_like(by_column)
    changes[:, 0] = by_column[:, 0]
    torch.ne(by_column[:, 1:], by_column[:, :-1], out=changes[:, 1:])
    counts, places = changes.sum(1).cpu().numpy(), changes.nonzero()[:, 1].cpu().numpy()
    parts = np.split(places, counts.cumsum()[:-1])
    return [EncodedMask(compress(part, (height, width))) for part in parts]
