"""The coins of the sample picture `coins.png`, outlined by hand, and the comparison of found boxes with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

PICTURE = Path(__file__).resolve().parent.parent / "samples" / "coins.png"
# The boxes x1, y1, x2, y2 of the 24 coins, row by row.
COINS = np.array(
    [
        *((21, 35, 68, 75), (80, 39, 122, 75), (131, 29, 180, 73), (191, 29, 240, 74)),
        *((254, 34, 298, 71), (304, 15, 367, 73), (23, 103, 70, 146), (82, 106, 124, 146)),
        *((132, 109, 176, 146), (184, 104, 229, 145), (243, 95, 298, 145), (316, 104, 360, 146)),
        *((23, 178, 64, 217), (78, 174, 126, 218), (133, 178, 176, 218), (187, 169, 238, 218)),
        *((250, 171, 299, 218), (314, 155, 382, 218), (16, 232, 76, 288), (91, 244, 137, 288)),
        *((143, 236, 202, 288), (218, 239, 270, 289), (274, 238, 328, 289), (334, 247, 382, 290)),
    ],
    np.float32,
)


def match(boxes: Sequence[Sequence[float]]) -> list[int | None]:
    """Return the number of the coin that each box x, y, width, height covers with an IoU above 0.5, or None."""
    numbers: list[int | None] = []
    for x, y, width, height in boxes:
        low, high = np.maximum(COINS[:, :2], [x, y]), np.minimum(COINS[:, 2:], [x + width, y + height])
        shared = np.clip(high - low, 0, None).prod(1)
        iou = shared / ((COINS[:, 2:] - COINS[:, :2]).prod(1) + width * height - shared)
        numbers.append(int(iou.argmax()) if iou.max() > 0.5 else None)
    return numbers
