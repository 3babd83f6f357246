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

AT_ONCE = 2**15  # places on outlines
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

    def along(self, axis: int, values: Tensor, begin: int) -> Tensor:
        """Rows (axis 0) or columns (axis 1) of (h, w) values, of which the first is source `begin`, to the outputs."""
        first, second, weight = (one.to(values.device) for one in (self.first, self.second, self.weight))
        # Not values[:, first], which takes seven times as long.
        one, other = values.index_select(axis, first - begin), values.index_select(axis, second - begin)
        return torch.lerp(one, other, weight if axis == 0 else weight[:, 0])

    def rows_above(self, values: Tensor, begin: int, threshold: float) -> Tensor:
        """Where rows (n, k), of which the first is source `begin`, make outputs above a threshold, (m, k) bool.

        Between two sources that are both above, or both not, all outputs are the same: only where they differ, at the
        outlines, is anything worked out.
        """
        first, weight = (self.first - begin).to(values.device), self.weight[:, 0].to(values.device)
        upper = values > threshold
        lower = torch.cat([upper[1:], upper[-1:]])  # of the last source the outputs are its own
        found = (upper & lower).index_select(0, first)
        counts = torch.bincount(first, minlength=len(values))  # outputs between each source and the next
        starts = counts.cumsum(0) - counts
        # numpy finds a few among many ten times as fast as torch.
        outline = torch.from_numpy(np.flatnonzero((upper ^ lower).cpu().numpy())).to(values.device)
        for some in outline.split(AT_ONCE):
            times = counts[some // values.shape[1]]
            some = some.repeat_interleave(times)
            source, column = some // values.shape[1], some % values.shape[1]
            before = (times.cumsum(0) - times).repeat_interleave(times)
            row = starts[source] + torch.arange(len(source), device=values.device) - before
            between = torch.lerp(values[source, column], values[source + 1, column], weight[row])
            found[row, column] = between > threshold
        return found


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
        rows = Taps.of(height, to_height, top, min(bottom, height), margin)
        columns = Taps.of(width, to_width, left, min(right, width), margin)
        if rows.low == rows.high or columns.low == columns.high:
            return nothing
        values = columns.along(1, values, column)
        if step < len(steps):
            values = rows.along(0, values, row)
        else:
            found = [rows.rows_above(values[: height - row], row, one) for one in thresholds]
        row, column = rows.start, columns.start
        top, bottom, left, right = rows.low, rows.high, columns.low, columns.high
    return [Cut(inside.cpu().numpy(), row, column, size) for inside in found]
