"""Remove small holes and small separate pieces from masks."""

from __future__ import annotations

import numpy as np


def remove_small_regions(mask: np.ndarray, area: int, holes: bool) -> tuple[np.ndarray, bool]:
    """Fill small holes in a mask, or remove small pieces from it.

    Regions are 8-connected: pixels that touch at a corner belong to the same region. If every piece is too small, the
    largest piece remains.

    Args:
        mask: (h, w) bool.
        area: minimum size of a region in pixels.
        holes: fill holes if True, remove pieces if False.

    Returns:
        The (h, w) bool mask, and whether it differs from `mask`.

    Example:
        >>> mask = np.ones((3, 3), bool)
        >>> mask[1, 1] = False
        >>> filled, changed = remove_small_regions(mask, area=2, holes=True)
        >>> bool(filled.all()), changed
        (True, True)
    """
    from scipy import ndimage  # takes a tenth of a second to import, and few calls need it

    regions, count = ndimage.label(~mask if holes else mask, structure=np.ones((3, 3), dtype=int))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < area) + 1
    if not len(small):
        return mask, False
    if holes:
        return mask | np.isin(regions, small), True
    large = np.flatnonzero(sizes >= area) + 1
    return np.isin(regions, large if len(large) else [sizes.argmax() + 1]), True
