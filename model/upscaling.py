"""Upscale low-resolution logits to masks of the image size. Only pixels inside each mask's bounding box are computed.

Bilinear weights are never negative, so a pixel can exceed the threshold only if at least one of its source logits does.
Pixels outside the bounding box of those logits are therefore skipped. Inside the box, the weights equal those of
torch's `F.interpolate(mode="bilinear", align_corners=False)`. The work consists of many small operations, for which
numpy has a tenth of torch's call overhead; see docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .masks import CroppedMask

OUTLINE_BATCH = 2**15  # outline pixels computed together
Size = tuple[int, int]  # (height, width)
# One step of upscaling: crop the logits to the first size, from the top left corner, then scale them to the second
# size.
Step = tuple[Size, Size]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Interpolation:
    """A one-dimensional linear interpolation, restricted to n consecutive outputs.

    "Sources" are the values before the interpolation, "outputs" the values after it. Each output is a weighted mean of
    two neighbouring sources. `around` selects the outputs that depend on requested sources.

    Attributes:
        start: index of the first of the n outputs.
        low: index of the first output that depends on the requested sources.
        high: index after the last output that depends on the requested sources.
        same: True if there are as many sources as outputs; each output then equals its first source.
        first: (n,) int64 index of the first source of each output.
        second: (n,) int64 index of the second source of each output.
        weight: (n,) float32 weight of the second source, from 0 to 1; the first source has the rest.
    """

    start: int
    low: int
    high: int
    same: bool
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: Floats

    @classmethod
    def around(cls, count: int, size: int, low: int, high: int, margin: int) -> Interpolation:
        """Select the outputs that depend on the requested sources, and `margin` more outputs on either side.

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

    def apply(self, axis: int, values: Floats, begin: int) -> Floats:
        """Interpolate along the rows or columns of an array.

        Args:
            axis: 0 to interpolate between rows, 1 to interpolate between columns.
            values: (h, w) sources.
            begin: index of the source that `values` starts with.

        Returns:
            (n, w) outputs for axis 0, (h, n) for axis 1.
        """
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
        """Interpolate between rows and compare the outputs with a threshold.

        If two neighbouring sources are both above the threshold, all outputs between them are above it too. If neither
        is above it, no output is. Only the outputs between two sources that differ need the interpolation; these are
        the pixels at the outline of a mask.

        Args:
            values: (h, w) sources.
            begin: index of the source row that `values` starts with.
            threshold: value to exceed.

        Returns:
            (n, w) bool, True where an output is above the threshold.
        """
        if self.same:
            return self.apply(0, values, begin) > threshold
        first = self.first - begin
        upper = values > threshold
        lower = np.concatenate([upper[1:], upper[-1:]])  # outputs at the last source have no second source
        result: NDArray[np.bool_] = (upper & lower).take(first, 0)
        counts = np.bincount(first, minlength=len(values))  # number of outputs between each source and the next
        starts = counts.cumsum() - counts
        outline = np.flatnonzero(upper ^ lower)
        for begins in range(0, len(outline), OUTLINE_BATCH):
            source, column = np.divmod(outline[begins : begins + OUTLINE_BATCH], values.shape[1])
            times = counts[source]
            above, below = values[source, column], values[source + 1, column]
            between = np.repeat(np.arange(len(source)), times)
            row = np.arange(len(between)) + (starts[source] - times.cumsum() + times)[between]
            result[row, column[between]] = above[between] + (below - above)[between] * self.weight[row] > threshold
        return result


@lru_cache(256)
def _line(count: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Compute the sources and weights of all `size` outputs for `count` sources.

    The formula is that of `F.interpolate(mode="bilinear", align_corners=False)`.

    Returns:
        (size,) int64 first source, (size,) int64 second source, and (size,) float32 weight of the second source. The
        indices are in ascending order.
    """
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * (np.float32(count) / np.float32(size))
    position = np.maximum(position - np.float32(0.5), 0)
    first = np.minimum(position.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), position - first.astype(np.float32)


def upscale_masks(logits: Floats, steps: Sequence[Step], thresholds: Sequence[float]) -> list[CroppedMask]:
    """Upscale logits and compare them with each threshold.

    Args:
        logits: (h, w) float32.
        steps: crops and scalings, applied in order. The last step scales to the size of the image.
        thresholds: values to exceed, in ascending order.

    Returns:
        One mask per threshold, True where the upscaled logits exceed the threshold.

    Example:
        >>> logits = np.full((4, 4), -1, np.float32)
        >>> logits[1:3, 1:3] = 1
        >>> (mask,) = upscale_masks(logits, [((4, 4), (8, 8))], [0.0])
        >>> int(mask.whole().sum())
        16
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
        rows = Interpolation.around(height, to_height, top, min(bottom, height), margin)
        columns = Interpolation.around(width, to_width, left, min(right, width), margin)
        if rows.low == rows.high or columns.low == columns.high:
            return empty
        taps.append((rows, columns))
        top, bottom, left, right = rows.low, rows.high, columns.low, columns.high
    down, _ = taps[0]
    row, column = int(down.first[0]), 0
    values = logits[row : down.second[-1] + 1]
    # Rows and columns are interpolated independently, so all horizontal steps can precede the vertical steps. The last
    # horizontal step then has only the low-resolution rows, a quarter of the rows that the first vertical step returns.
    for _, columns in taps:
        values = columns.apply(1, values, column)
        column = columns.start
    for rows, _ in taps[:-1]:
        values = rows.apply(0, values, row)
        row = rows.start
    last, _ = taps[-1]
    (height, _), _ = steps[-1]
    return [
        CroppedMask(last.rows_above(values[: height - row], row, threshold), last.start, column, size)
        for threshold in thresholds
    ]
