"""Masks in Label Studio's brush format."""

from __future__ import annotations

import numpy as np


def encode_brush(mask: np.ndarray) -> bytes:
    """Encode a mask in Label Studio's brush format.

    Label Studio encodes an RGBA image, whose four values per pixel are 255 inside the mask and 0 outside, with the
    rle-pack package (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack). The bits are:

    - a header: 32 bits for the number of values, 5 bits for the width of a value - 1, and four times 4 bits for a
      possible width of a run length - 1;
    - for each run: 1 bit (1 for a run of equal values), 2 bits that select one of the four widths, the run length - 1
      in that width, and the value.

    Args:
        mask: `(H, W)` bool.
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    bits = [f"{flat.size * 4:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        remaining = (end - start) * 4
        while remaining:
            run = min(remaining, 2**16)
            choice, size = next((i, size) for i, size in enumerate((3, 4, 8, 16)) if run <= 2**size)
            bits.append(f"1{choice:02b}{run - 1:0{size}b}{value}")
            remaining -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
