"""Pictures of an evaluation: curves, and single cases with their true and found masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from model import masks
from scoring.overlay import Shown, curves, overlay, sheet
from training.figures import SCORED, bins, groups
from training.ground_truth import Picture, Thing
from training.judge import CLICKED, Judged

CASE = 200  # pixels, each half of a case
SHARES = [step / 100 for step in range(101)]


@dataclass(frozen=True)
class Case:
    """One object, drawn: the true mask, the one found from the box, and its figures."""

    iou: float
    drawn: Image.Image


def case(picture: Picture, thing: Thing, judged: Judged) -> Case:
    """The object with half its size around it, its true mask on the left, the found one with its box on the right."""
    height, width = picture.image.shape[:2]
    x1, y1, x2, y2 = judged.box
    margin = max(16, (x2 - x1) / 2, (y2 - y1) / 2)
    left, top = int(max(0, x1 - margin)), int(max(0, y1 - margin))
    right, bottom = int(min(width, x2 + margin)), int(min(height, y2 + margin))
    scale = CASE / max(right - left, bottom - top)
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))

    def shown(mask: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(mask[top:bottom, left:right]).resize(size, Image.Resampling.NEAREST))

    image = np.asarray(Image.fromarray(picture.image[top:bottom, left:right]).resize(size))
    figure = judged.figures["box"]
    box = (judged.box - np.array([left, top, left, top], np.float32)) * np.float32(scale)
    page = Image.new("RGB", (2 * CASE + 4, CASE + 32), (255, 255, 255))
    page.paste(overlay(image, [Shown(shown(thing.mask), None)]), (0, 32))
    page.paste(overlay(image, [Shown(shown(masks.from_rle(judged.rle)), None, box)]), (CASE + 4, 32))
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), f"{picture.name}, {thing.name}"[:60], fill=(0, 0, 0), font_size=13)
    draw.text((0, 15), "true", fill=(0, 0, 0), font_size=13)
    draw.text((CASE + 4, 15), f"IoU {figure.iou:.2f}, predicted {figure.score:.2f}", fill=(0, 0, 0), font_size=13)
    return Case(figure.iou, page)


def worst(cases: Sequence[Case]) -> Image.Image:
    """A sheet of cases."""
    return sheet([one.drawn for one in cases], columns=3)


def boxed(picture: Picture, judged: Sequence[Judged]) -> Image.Image:
    """A picture with the mask of every thing, found from its box."""
    shown = [Shown(masks.from_rle(one.rle), one.figures["box"].score, one.box) for one in judged]
    return overlay(picture.image, shown)


def summary(models: Mapping[str, pd.DataFrame]) -> Image.Image:
    """IoU against clicks, true against predicted IoU, and how IoU is distributed, side by side, of tables of objects by
    their model's name. Of one model by size and by prompt, of several a line each."""
    (things, *others) = models.values()
    sizes = models if others else dict(groups(things))
    counts = range(1, len(CLICKED) + 1)
    clicks = {name: (counts, [float(some[prompt].mean()) for prompt in CLICKED]) for name, some in sizes.items()}
    scores = {name: bins(some) for name, some in models.items()}
    columns = (
        {name: some["box"] for name, some in models.items()} if others else {name: things[name] for name in SCORED}
    )
    below = {name: (SHARES, [float((column <= share).mean()) for share in SHARES]) for name, column in columns.items()}
    return sheet(
        [
            curves(clicks, "clicks", "mean IoU"),
            curves(
                {name: (table["score"], table["iou"]) for name, table in scores.items()}, "predicted IoU", "IoU", True
            ),
            curves(below, "IoU" if not others else "IoU from a box", "share of things up to it"),
        ],
        columns=3,
    )
