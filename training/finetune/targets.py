"""Convert true masks to training targets: the share of each low-resolution cell that the object covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam_endpoint.evaluation.geometry import Mask, bounding_box
from sam_endpoint.evaluation.ground_truth import AnnotatedImage, Problems
from sam_endpoint.model.families.family import Family

HALF = 128  # a cell with at least this share, of 255, counts as part of the object


@dataclass(frozen=True)
class Target:
    """The target of one object.

    Attributes:
        share: (rows, columns) uint8, the share of each cell that the object covers: 255 for the whole cell. Cells of
            the grid outside `share` have the share 0.
        top: The row of the grid at which `share` begins.
        left: The column of the grid at which `share` begins.
        box: (4,) float32, x1, y1, x2, y2 in pixels of the model's input.
    """

    share: NDArray[np.uint8]
    top: int
    left: int
    box: NDArray[np.float32]

    def whole(self, low_res_size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the shares of all cells of a (height, width) grid, float32 from 0 to 1."""
        grid = np.zeros(low_res_size, np.float32)
        rows, columns = self.share.shape
        grid[self.top : self.top + rows, self.left : self.left + columns] = self.share
        return grid / np.float32(255)


def region_of(family: Family, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) of the low-resolution cells that an image of `size` (height, width) covers."""
    scale_x, scale_y = family.scale(size)
    height, width = (
        max(1, min(low, round(side * scale * low / family.input_size)))
        for side, scale, low in zip(size, (scale_y, scale_x), family.low_res_size, strict=True)
    )
    return height, width


def make_target(family: Family, mask: Mask) -> Target | None:
    """Return the target of a mask. The mask must not be empty.

    If the object covers less than half of every cell, return None.

    Args:
        family: The model, which defines the grid.
        mask: (height, width) bool.
    """
    size = (mask.shape[0], mask.shape[1])
    height, width = region_of(family, size)
    pixels = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    share = np.asarray(pixels.resize((width, height), Image.Resampling.BOX))
    if share.max() < HALF:
        return None
    x1, y1, x2, y2 = bounding_box(share > 0).astype(int)
    box = bounding_box(mask) * np.array(family.scale(size) * 2, np.float32)
    return Target(share[y1:y2, x1:x2].copy(), int(y1), int(x1), box)


def make_targets(family: Family, image: AnnotatedImage, problems: Problems) -> list[Target]:
    """Return the targets of an image. Leave out objects that are smaller than a cell, and count them in `problems`."""
    targets = []
    for true in image.objects:
        target = make_target(family, true.mask)
        if target is None:
            problems.add("masks smaller than a cell of the model's grid, not trained on", f"{image.name}, {true.name}")
        else:
            targets.append(target)
    return targets
