"""Pictures people look at: masks, prompts and scores over their image, and sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# Okabe and Ito's palette, told apart by the colour-blind (https://jfly.uni-koeln.de/color/), brightest first.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
LARGEST_SIDE = 900


@dataclass(frozen=True)
class Shown:
    """A mask to draw: (h, w) bool; box: (4,) x1,y1,x2,y2; points: (n, 2); labels: (n,); score: predicted IoU."""

    mask: np.ndarray
    score: float
    box: np.ndarray | None = None
    points: np.ndarray | None = None
    labels: np.ndarray | None = None


def overlay(image: np.ndarray, shown: Sequence[Shown]) -> Image.Image:
    """An (h, w, 3) uint8 image with each mask tinted and outlined in its own colour, its prompt and score."""
    tinted = image.astype(np.float32)
    for i, one in enumerate(shown):
        tint = np.array(COLOURS[i % len(COLOURS)], np.float32)
        tinted[one.mask] = 0.5 * tinted[one.mask] + 0.5 * tint
        tinted[_outline(one.mask)] = tint
    picture = Image.fromarray(tinted.astype(np.uint8))
    scale = min(1.0, LARGEST_SIDE / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(picture)
    for i, one in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        if one.box is not None:
            draw.rectangle([float(side) * scale for side in one.box], outline=colour, width=2)
        for point, label in zip(_or_empty(one.points), _or_empty(one.labels), strict=True):
            x, y = (float(number) * scale for number in point)
            draw.ellipse(
                (x - 5, y - 5, x + 5, y + 5), fill=(255, 255, 255) if label == 1 else (0, 0, 0), outline=colour, width=2
            )
        if one.mask.any():
            ys, xs = np.nonzero(one.mask)
            place = (float(xs.mean()) * scale, float(ys.mean()) * scale)
            draw.text(
                place,
                f"{one.score:.2f}",
                fill=(255, 255, 255),
                anchor="mm",
                stroke_width=2,
                stroke_fill=(0, 0, 0),
                font_size=16,
            )
    return picture


def sheet(pictures: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Pictures side by side, `columns` a line, on white."""
    columns = min(columns, len(pictures))
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    lines = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 8) + 8, lines * (height + 8) + 8), (255, 255, 255))
    for i, picture in enumerate(pictures):
        page.paste(picture, (8 + (i % columns) * (width + 8), 8 + (i // columns) * (height + 8)))
    return page


def _outline(mask: np.ndarray) -> np.ndarray:
    inside = np.pad(mask, 1)
    inside = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~inside


def _or_empty(array: np.ndarray | None) -> np.ndarray:
    return np.empty((0, 2)) if array is None else array
