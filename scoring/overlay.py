"""Draw masks with their prompts and scores over images, arrange images on a sheet, and plot curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

# Okabe and Ito's colour-blind safe palette (https://jfly.uni-koeln.de/color/), brightest first.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
# Colours of the palette that are dark enough for lines on white, and dashes that distinguish lines in greyscale.
LINES = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233))
DASHES = ("-", "--", "-.", ":")
LARGEST_SIDE = 900  # pixels; larger images are scaled down


@dataclass(frozen=True)
class Shown:
    """A mask to draw, with its prompt and score.

    Attributes:
        mask: `(H, W)` bool.
        score: predicted IoU; None draws no score.
        box: `(4,)` x1, y1, x2, y2 in pixels.
        points: `(N, 2)` x, y in pixels.
        labels: `(N,)` 1 for foreground, 0 for background.
    """

    mask: np.ndarray
    score: float | None
    box: np.ndarray | None = None
    points: np.ndarray | None = None
    labels: np.ndarray | None = None


def overlay(image: np.ndarray, shown: Sequence[Shown]) -> Image.Image:
    """Draw masks over an image, each with its prompt and score in a separate colour.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        shown: the masks, each of the image's size.

    Returns:
        The drawing, scaled down so that its longer side has at most LARGEST_SIDE pixels.
    """
    tinted = image.astype(np.float32)
    for i, item in enumerate(shown):
        tint = np.array(COLOURS[i % len(COLOURS)], np.float32)
        tinted[item.mask] = 0.5 * tinted[item.mask] + 0.5 * tint
        tinted[_outline(item.mask)] = tint
    picture = Image.fromarray(tinted.astype(np.uint8))
    scale = min(1.0, LARGEST_SIDE / max(picture.size))
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    draw = ImageDraw.Draw(picture)
    for i, item in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        if item.box is not None:
            draw.rectangle([float(side) * scale for side in item.box], outline=colour, width=2)
        for point, label in zip(_or_empty(item.points), _or_empty(item.labels), strict=True):
            x, y = (float(number) * scale for number in point)
            draw.ellipse(
                (x - 5, y - 5, x + 5, y + 5), fill=(255, 255, 255) if label == 1 else (0, 0, 0), outline=colour, width=2
            )
        if item.score is not None and item.mask.any():
            ys, xs = np.nonzero(item.mask)
            position = (float(xs.mean()) * scale, float(ys.mean()) * scale)
            draw.text(
                position,
                f"{item.score:.2f}",
                fill=(255, 255, 255),
                anchor="mm",
                stroke_width=2,
                stroke_fill=(0, 0, 0),
                font_size=16,
            )
    return picture


def sheet(pictures: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Arrange images on a white page, in rows of `columns` images."""
    columns = min(columns, len(pictures))
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    lines = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (width + 8) + 8, lines * (height + 8) + 8), (255, 255, 255))
    for i, picture in enumerate(pictures):
        page.paste(picture, (8 + (i % columns) * (width + 8), 8 + (i // columns) * (height + 8)))
    return page


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, diagonal: bool = False
) -> Image.Image:
    """Plot curves.

    Args:
        lines: (xs, ys) of each curve by its name.
        x: label of the x axis.
        y: label of the y axis.
        diagonal: whether to limit both axes to 0..1 and draw the diagonal.

    Returns:
        The plot, 440 x 360 pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a slow import that few commands need
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.6), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel=x, ylabel=y)
    if diagonal:
        axes.plot((0, 1), (0, 1), color="#999999", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        colour = tuple(part / 255 for part in LINES[i % len(LINES)])
        marker = "o" if len(xs) <= 20 else ""
        axes.plot(xs, ys, DASHES[i % len(DASHES)], color=colour, marker=marker, markersize=4, label=name)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(lines) > 1:
        axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the `(H, W)` bool mask of those pixels that have a 4-neighbour outside the given mask."""
    inside = np.pad(mask, 1)
    inside = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    outline: np.ndarray = mask & ~inside
    return outline


def _or_empty(array: np.ndarray | None) -> np.ndarray:
    return np.empty((0, 2)) if array is None else array
