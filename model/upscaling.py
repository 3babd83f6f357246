"""Low-resolution logits to masks of an image's size, worked out only where a mask is.

Bilinear weights are never negative, so that a pixel can be above the threshold only where one of the low-resolution
logits that it is made of is. What is outside their box is known to be no mask and never made; inside, the weights are
those of torch's `F.interpolate` (bilinear, corners not aligned). Measured in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from model.masks import Cut

NUMBERS = 2**18  # at a time: 1 MiB
Size = tuple[int, int]
# What is done to (rows, columns) of logits: cut to the first size at the top left, then scaled to the second.
Step = tuple[Size, Size]


@dataclass(frozen=True)
class Taps:
    """Some neighbouring outputs of a line of values that is scaled: the two sources of each, and the second's weight.

    start: the first of these outputs; low, high: those that are made of the sources asked about.
    """

    start: int
    low: int
    high: int
    first: Tensor
    second: Tensor
    weight: Tensor

    @classmethod
    def of(cls, count: int, size: int, low: int, high: int, margin: int) -> Taps:
        """The outputs of `count` values scaled to `size` that sources `low` to before `high` have a part in, and
        `margin` more on either side."""
        first, second, weight = _line(count, size)
        begin, end = int(np.searchsorted(second, low)), int(np.searchsorted(first, high))
        if end <= begin:  # scaling down can leave those out
            begin = end = 0
        some = slice(max(0, begin - margin), end + margin)
        return cls(some.start, begin, end, *(torch.from_numpy(one[some]) for one in (first, second, weight)))

    def rows(self, values: Tensor, begin: int, part: slice = slice(None)) -> Tensor:
        """Rows (n, k), of which the first is source `begin`, to some of the outputs, (m, k)."""
        first, second, weight = (one[part].to(values.device) for one in (self.first, self.second, self.weight))
        return torch.lerp(values[first - begin], values[second - begin], weight)


@lru_cache(256)
def _line(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two sources (size,) of each of `size` outputs of `count` values, in rising order, and the second's weight
    (size, 1)."""
    at = (torch.arange(size) + 0.5) * (torch.tensor(float(count)) / size) - 0.5
    at.clamp_(min=0)
    first = at.long().clamp_(max=count - 1)
    second = (first + 1).clamp_(max=count - 1)
    return first.numpy(), second.numpy(), (at - first)[:, None].numpy()


def above(logits: Tensor, steps: Sequence[Step], thresholds: Sequence[float]) -> list[Cut]:
    """Where (h, w) logits are above each of some thresholds, the lowest first, once the steps are taken."""
    size = steps[-1][1]
    nothing = [Cut(np.zeros((0, 0), bool), 0, 0, size) for _ in thresholds]
    (height, width), _ = steps[0]
    source = torch.nonzero(logits[:height, :width] > thresholds[0])
    if not len(source):
        return nothing
    (top, left), (bottom, right) = source.amin(0).tolist(), (source.amax(0) + 1).tolist()
    values, row, column = logits, 0, 0
    for step, ((height, width), (to_height, to_width)) in enumerate(steps, 1):
        margin = 1 if step < len(steps) else 0  # the next step's outputs may be made of one source beside the box
        down = Taps.of(height, to_height, top, min(bottom, height), margin)
        along = Taps.of(width, to_width, left, min(right, width), margin)
        if down.low == down.high or along.low == along.high:
            return nothing
        values = along.rows(values.mT.contiguous(), column).mT.contiguous()
        if step < len(steps):
            values = down.rows(values, row)
        else:
            found = torch.empty(
                len(thresholds), len(down.first), len(along.first), dtype=torch.bool, device=values.device
            )
            at_once = max(1, NUMBERS // values.shape[1])
            for start in range(0, len(down.first), at_once):
                part = slice(start, start + at_once)
                block = down.rows(values, row, part)
                for i, threshold in enumerate(thresholds):
                    torch.gt(block, threshold, out=found[i, part])
        row, column = down.start, along.start
        top, bottom, left, right = down.low, down.high, along.low, along.high
    return [Cut(inside, row, column, size) for inside in found.cpu().numpy()]
