"""Low-resolution logits to masks of an image's size, worked out only where a mask is.

Bilinear weights are never negative, so that a pixel can be above the threshold only where one of the low-resolution
logits that it is made of is. What is outside their box is known to be no mask and never made; inside, the weights are
those of torch's `F.interpolate` (bilinear, corners not aligned). In numpy, whose calls take a tenth of torch's: there
are many small ones. Measured in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model.masks import Cut

AT_ONCE = 2**15  # places on outlines
Size = tuple[int, int]
# What is done to (rows, columns) of logits: cut to the first size at the top left, then scaled to the second.
Step = tuple[Size, Size]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taps:
    """Some neighbouring outputs of a line of values that is scaled: the two sources of each, and the second's weight.

    start: the first of these outputs; low, high: those that are made of the sources asked about; same: nothing is
    scaled, each output is its first source.
    """

    start: int
    low: int
    high: int
    same: bool
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: Floats

    @classmethod
    def of(cls, count: int, size: int, low: int, high: int, margin: int) -> Taps:
        """The outputs of `count` values scaled to `size` that sources `low` to before `high` have a part in, and
        `margin` more on either side."""
        first, second, weight = _line(count, size)
        begin, end = int(np.searchsorted(second, low)), int(np.searchsorted(first, high))
        if end <= begin:  # scaling down can leave those out
            begin = end = 0
        some = slice(max(0, begin - margin), end + margin)
        return cls(some.start, begin, end, count == size, first[some], second[some], weight[some])

    def along(self, axis: int, values: Floats, begin: int) -> Floats:
        """Rows (axis 0) or columns (axis 1) of (h, w) values, of which the first is source `begin`, to the outputs."""
        if self.same:
            some = slice(self.first[0] - begin, self.first[-1] - begin + 1)
            return values[some] if axis == 0 else values[:, some]
        weight = self.weight[:, None] if axis == 0 else self.weight
        found = values.take(self.second - begin, axis)
        one = values.take(self.first - begin, axis)
        found -= one
        found *= weight
        found += one
        return found

    def rows_above(self, values: Floats, begin: int, threshold: float) -> NDArray[np.bool_]:
        """Where rows (n, k), of which the first is source `begin`, make outputs above a threshold, (m, k) bool.

        Between two sources that are both above, or both not, all outputs are the same: only where they differ, at the
        outlines, is anything worked out.
        """
        if self.same:
            return self.along(0, values, begin) > threshold
        first = self.first - begin
        upper = values > threshold
        lower = np.concatenate([upper[1:], upper[-1:]])  # of the last source the outputs are its own
        found = (upper & lower).take(first, 0)
        counts = np.bincount(first, minlength=len(values))  # outputs between each source and the next
        starts = counts.cumsum() - counts
        outline = np.flatnonzero(upper ^ lower)
        for begins in range(0, len(outline), AT_ONCE):
            source, column = np.divmod(outline[begins : begins + AT_ONCE], values.shape[1])
            times = counts[source]
            above, below = values[source, column], values[source + 1, column]
            between = np.repeat(np.arange(len(source)), times)
            row = np.arange(len(between)) + (starts[source] - times.cumsum() + times)[between]
            found[row, column[between]] = above[between] + (below - above)[between] * self.weight[row] > threshold
        return found


@lru_cache(256)
def _line(count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The two sources (size,) of each of `size` outputs of `count` values, in rising order, and the second's weight."""
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * (np.float32(count) / np.float32(size))
    at = np.maximum(at - np.float32(0.5), 0)
    first = np.minimum(at.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), at - first.astype(np.float32)


def above(logits: Floats, steps: Sequence[Step], thresholds: Sequence[float]) -> list[Cut]:
    """Where (h, w) logits are above each of some thresholds, the lowest first, once the steps are taken."""
    size = steps[-1][1]
    nothing = [Cut(np.zeros((0, 0), bool), 0, 0, size) for _ in thresholds]
    (height, width), _ = steps[0]
    source = logits[:height, :width] > thresholds[0]
    rows_with, columns_with = np.flatnonzero(source.any(1)), np.flatnonzero(source.any(0))
    if not len(rows_with):
        return nothing
    top, bottom, left, right = rows_with[0], rows_with[-1] + 1, columns_with[0], columns_with[-1] + 1
    taps = []
    for step, ((height, width), (to_height, to_width)) in enumerate(steps, 1):
        margin = 1 if step < len(steps) else 0  # the next step's outputs may be made of one source beside the box
        rows = Taps.of(height, to_height, top, min(bottom, height), margin)
        columns = Taps.of(width, to_width, left, min(right, width), margin)
        if rows.low == rows.high or columns.low == columns.high:
            return nothing
        taps.append((rows, columns))
        top, bottom, left, right = rows.low, rows.high, columns.low, columns.high
    down, _ = taps[0]
    row, column = int(down.first[0]), 0
    values = logits[row : down.second[-1] + 1]
    # All steps across before any step down, which is the same (each is linear in its axis), on a quarter of the rows.
    for _, columns in taps:
        values = columns.along(1, values, column)
        column = columns.start
    for rows, _ in taps[:-1]:
        values = rows.along(0, values, row)
        row = rows.start
    last, _ = taps[-1]
    (height, _), _ = steps[-1]
    return [Cut(last.rows_above(values[: height - row], row, one), last.start, column, size) for one in thresholds]
