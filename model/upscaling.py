"""Upscale low-resolution logits to masks of the image size, computed only inside the bounding box of each mask.

Bilinear weights are never negative, so a pixel can exceed the threshold only where at least one of its source logits
does. Pixels outside the box of these logits are never computed; inside, the weights equal those of torch's
`F.interpolate(mode="bilinear", align_corners=False)`. The work consists of many small operations, for which numpy has
a tenth of torch's call overhead; see docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .masks import CroppedMask

AT_ONCE = 2**15  # outline pixels computed together
Size = tuple[int, int]
# One step for (rows, columns) of logits: crop to the first size at the top left, then scale to the second size.
Step = tuple[Size, Size]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taps:
    """Sources and weights of consecutive outputs of a one-dimensional linear interpolation.

    Attributes:
        start: index of the first output.
        low: index of the first output that depends on the requested sources.
        high: index after the last output that depends on the requested sources.
        same: True if the sizes are equal; each output then equals its first source.
        first: (n,) index of the first source of each output.
        second: (n,) index of the second source of each output.
        weight: (n,) weight of the second source of each output.
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
        """Return the outputs that depend on sources `low` to `high` (exclusive), and `margin` outputs on either side.

        Args:
            count: number of sources.
            size: number of outputs.
            low: first requested source.
            high: index after the last requested source.
            margin: number of additional outputs on either side.
        """
        first, second, weight = _line(count, size)
        begin, end = int(np.searchsorted(second, low)), int(np.searchsorted(first, high))
        if end <= begin:  # downscaling can skip the requested sources
            begin = end = 0
        selection = slice(max(0, begin - margin), end + margin)
        return cls(selection.start, begin, end, count == size, first[selection], second[selection], weight[selection])

    def along(self, axis: int, values: Floats, begin: int) -> Floats:
        """Interpolate the rows (axis 0) or columns (axis 1) of (h, w) values, of which the first is source `begin`."""
        if self.same:
            selection = slice(self.first[0] - begin, self.first[-1] - begin + 1)
            return values[selection] if axis == 0 else values[:, selection]
        weight = self.weight[:, None] if axis == 0 else self.weight
        outputs = values.take(self.second - begin, axis)
        first_values = values.take(self.first - begin, axis)
        outputs -= first_values
        outputs *= weight
        outputs += first_values
        return outputs

    def rows_above(self, values: Floats, begin: int, threshold: float) -> NDArray[np.bool_]:
        """Interpolate rows and compare the outputs with a threshold.

        If two neighbouring sources are both above the threshold, or both not, so are all outputs between them. Only
        outputs between sources that differ, at the outlines, are interpolated.

        Args:
            values: (n, k) rows, of which the first is source `begin`.
            begin: index of the first row.
            threshold: value to exceed.

        Returns:
            (m, k) bool, True where an output is above the threshold.
        """
        if self.same:
            return self.along(0, values, begin) > threshold
        first = self.first - begin
        upper = values > threshold
        lower = np.concatenate([upper[1:], upper[-1:]])  # outputs at the last source have no second source
        result: NDArray[np.bool_] = (upper & lower).take(first, 0)
        counts = np.bincount(first, minlength=len(values))  # number of outputs between each source and the next
        starts = counts.cumsum() - counts
        outline = np.flatnonzero(upper ^ lower)
        for begins in range(0, len(outline), AT_ONCE):
            source, column = np.divmod(outline[begins : begins + AT_ONCE], values.shape[1])
            times = counts[source]
            above, below = values[source, column], values[source + 1, column]
            between = np.repeat(np.arange(len(source)), times)
            row = np.arange(len(between)) + (starts[source] - times.cumsum() + times)[between]
            result[row, column[between]] = above[between] + (below - above)[between] * self.weight[row] > threshold
        return result


@lru_cache(256)
def _line(count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the first source, the second source and the second's weight of each output, three arrays of (size,).

    `count` is the number of sources. The indices are in ascending order.
    """
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * (np.float32(count) / np.float32(size))
    position = np.maximum(position - np.float32(0.5), 0)
    first = np.minimum(position.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), position - first.astype(np.float32)


def above(logits: Floats, steps: Sequence[Step], thresholds: Sequence[float]) -> list[CroppedMask]:
    """Upscale logits and compare them with each threshold.

    Args:
        logits: (h, w) float32.
        steps: crops and scalings, applied in order.
        thresholds: values to exceed, in ascending order.

    Returns:
        One mask per threshold.
    """
    size = steps[-1][1]
    empty = [CroppedMask(np.zeros((0, 0), bool), 0, 0, size) for _ in thresholds]
    (height, width), _ = steps[0]
    source = logits[:height, :width] > thresholds[0]
    rows_with, columns_with = np.flatnonzero(source.any(1)), np.flatnonzero(source.any(0))
    if not len(rows_with):
        return empty
    top, bottom, left, right = rows_with[0], rows_with[-1] + 1, columns_with[0], columns_with[-1] + 1
    taps = []
    for step, ((height, width), (to_height, to_width)) in enumerate(steps, 1):
        margin = 1 if step < len(steps) else 0  # the next step may read one source beside the box
        rows = Taps.of(height, to_height, top, min(bottom, height), margin)
        columns = Taps.of(width, to_width, left, min(right, width), margin)
        if rows.low == rows.high or columns.low == columns.high:
            return empty
        taps.append((rows, columns))
        top, bottom, left, right = rows.low, rows.high, columns.low, columns.high
    down, _ = taps[0]
    row, column = int(down.first[0]), 0
    values = logits[row : down.second[-1] + 1]
    # Each step is linear in its axis, so all horizontal steps can precede the vertical steps, which saves three
    # quarters of the rows.
    for _, columns in taps:
        values = columns.along(1, values, column)
        column = columns.start
    for rows, _ in taps[:-1]:
        values = rows.along(0, values, row)
        row = rows.start
    last, _ = taps[-1]
    (height, _), _ = steps[-1]
    return [
        CroppedMask(last.rows_above(values[: height - row], row, threshold), last.start, column, size)
        for threshold in thresholds
    ]
