"""Greys of more than 8 bits, as viewers show them: 16-bit and 32-bit integers, and floats."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

# Values that mark pixels without data where a file does not name its own, by custom of elevation and satellite data.
NODATA = (-9999.0, -32768.0, -99999.0)
MAX_VALUE = 1e30  # data sets use floats beyond it, such as -3.4e38, as marks too
PERCENTILES = (0.1, 99.9)
MAX_SAMPLES = 2**20


def to_8_bits(values: np.ndarray, nodata: object = None) -> np.ndarray:
    """Stretch deep greys to 8 bits: the 0.1 to 99.9 percentile of the image's values becomes 0 to 255.

    A few outliers therefore darken nothing. If the percentiles coincide, the range of all values is stretched; an image
    of a single value becomes black. Pixels that are NaN or marked as without data become 0.

    Args:
        values: (height, width) integers or floats.
        nodata: the file's own mark of pixels without data, a number or its text.

    Returns:
        (height, width) uint8.
    """
    marks = [*NODATA]
    with suppress(TypeError, ValueError):
        marks.append(float(str(nodata).strip("\0 ")))
    step = max(1, math.isqrt(values.size // MAX_SAMPLES))
    sample = values[::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample) & (np.abs(sample) < MAX_VALUE) & ~np.isin(sample, marks)]
    low, high = np.percentile(sample, PERCENTILES) if sample.size else (0.0, 0.0)
    if low == high and sample.size:
        low, high = sample.min(), sample.max()
    levels = np.zeros(values.shape, np.uint8)
    if low == high:
        return levels
    for row, stored in enumerate(values):  # row by row: the whole image would need arrays of eight bytes a pixel
        line = stored.astype(np.float64)
        line[np.isnan(line) | np.isin(line, marks)] = low
        levels[row] = np.clip((line - low) * (255 / (high - low)), 0, 255)
    return levels
