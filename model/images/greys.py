"""Convert greyscale images of 16-bit integers, 32-bit integers or floats to 8 bits, as image viewers do."""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

# Elevation and satellite data commonly mark pixels without data by one of these values.
NODATA = (-9999.0, -32768.0, -99999.0)
MAX_VALUE = 1e30  # larger floats, such as -3.4e38, also mark pixels without data
PERCENTILES = (0.1, 99.9)
MAX_SAMPLES = 2**20


def stretch_to_8_bits(values: np.ndarray, nodata: object = None) -> np.ndarray:
    """Stretch grey values to 8 bits: the range from the 0.1 to the 99.9 percentile becomes 0 to 255.

    Percentiles are used because the full range would let a few outliers darken the image. If the two percentiles are
    equal, the range from the minimum to the maximum is stretched instead. An image of a single value becomes black.
    Pixels without data become 0.

    Args:
        values: (height, width) integers or floats.
        nodata: the value that marks pixels without data in this file, as a number or text. NaN and the values in NODATA
            always mark pixels without data.

    Returns:
        (height, width) uint8.

    Example:
        >>> stretch_to_8_bits(np.array([[0, 1000], [500, -9999]])).tolist()
        [[0, 255], [127, 0]]
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
    for row, stored in enumerate(
        values
    ):  # row by row, because float64 arrays of the whole image would need 8 bytes per pixel
        line = stored.astype(np.float64)
        line[np.isnan(line) | np.isin(line, marks)] = low
        levels[row] = np.clip((line - low) * (255 / (high - low)), 0, 255)
    return levels
