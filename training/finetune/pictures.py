"""Draw the pictures of a fine-tuning: the curves, and the objects whose masks changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from sam_endpoint.evaluation import plots
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.geometry import Mask, bounding_box, center, iou
from sam_endpoint.evaluation.ground_truth import AnnotatedImage, TrueObject
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmenter
from sam_endpoint.scoring.overlay import Shown, curves, overlay, sheet
from sam_endpoint.training.finetune.gate import BASE, CANDIDATE, Comparison

MAX_CASES = 8  # maximum number of objects that got worse; the number of objects that got better has the same limit
PANEL = 180  # pixels; side of each of the three panels of an object


def draw_training(history: Sequence[Mapping[str, float]]) -> Image.Image:
    """Draw the loss and the validation figure against the step."""
    steps = [row["step"] for row in history]
    later = history[1:] or history  # the first row was measured before the first step, so it has no loss
    panels = [
        curves({"loss": ([row["step"] for row in later], [row["loss"] for row in later])}, "step", "loss"),
        curves({"IoU": (steps, [row["figure"] for row in history])}, "step", "IoU of the watched images"),
    ]
    return sheet(panels, columns=2)


def draw_comparison(comparison: Comparison) -> Image.Image:
    """Draw the curves of both models on the held-out data."""
    return plots.draw_summary(dict(zip((BASE, CANDIDATE), comparison.tables, strict=True)))


def draw_changes(comparison: Comparison, models: Mapping[str, Segmenter], ground_truth: CocoDataset) -> Image.Image:
    """Draw the objects whose IoU from one click changed most, the largest loss first.

    Each object has three panels: the true mask, the mask of the base model and the mask of the fine-tuned model.

    Args:
        comparison: The comparison on `ground_truth`.
        models: The base and the fine-tuned model, by their names in the gate.
        ground_truth: The images, which are read again.
    """
    first, second = comparison.tables
    change = (second["1 click"] - first["1 click"]).to_numpy()
    order = np.argsort(change, kind="stable")
    chosen = dict.fromkeys([*order[:MAX_CASES].tolist(), *order[::-1][:MAX_CASES].tolist()])
    wanted = {(first["image"][row], first["thing"][row]): place for place, row in enumerate(chosen)}
    names = {name for name, _ in wanted}
    ground_truth.images = {key: entry for key, entry in ground_truth.images.items() if entry["file_name"] in names}
    ground_truth.count = len(ground_truth.images)
    drawn: dict[int, Image.Image] = {}
    for image in ground_truth:
        embeddings = {name: segmenter.embed([image.pixels])[0] for name, segmenter in models.items()}
        for true in image.objects:
            if (place := wanted.get((image.name, true.name))) is not None:
                drawn[place] = _draw_change(image, true, models, embeddings)
    return sheet([drawn[place] for place in sorted(drawn, key=lambda place: change[list(chosen)[place]])], columns=2)


def _draw_change(
    image: AnnotatedImage, true: TrueObject, models: Mapping[str, Segmenter], embeddings: Mapping[str, Embedding]
) -> Image.Image:
    mask = true.mask
    click = np.array([center(mask)], np.float32)
    shown = [("true", mask)]
    for name, segmenter in models.items():
        (answer,) = segmenter.segment(embeddings[name], [Prompt(click, np.array([1]))])
        predicted = segmenter.masks(answer)[int(answer.scores.argmax())]
        shown.append((f"{name} {iou(mask, predicted):.2f}", predicted))
    region, size = _region(mask)
    page = Image.new("RGB", (3 * (PANEL + 4), PANEL + 32), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    name = image.name.replace("\\", "/").rpartition("/")[2]
    draw.text((0, 0), f"{name}, {true.name}"[:70], fill=(0, 0, 0), font_size=12)
    pixels = np.asarray(Image.fromarray(image.pixels[region]).resize(size))
    factors = np.array(size) / (mask[region].shape[1], mask[region].shape[0])
    point = (click - (region[1].start, region[0].start)) * factors
    for column, (title, part) in enumerate(shown):
        small = np.asarray(Image.fromarray(part[region]).resize(size, Image.Resampling.NEAREST))
        drawing = Shown(small, None, points=point, labels=np.array([1])) if column else Shown(small, None)
        page.paste(overlay(pixels, [drawing]), (column * (PANEL + 4), 32))
        draw.text((column * (PANEL + 4), 15), title, fill=(0, 0, 0), font_size=13)
    return page


def _region(mask: Mask) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Return the part of an image around a mask, with a margin of half its size, and the part's drawn size (w, h)."""
    height, width = mask.shape
    x1, y1, x2, y2 = bounding_box(mask)
    margin = max(16, (x2 - x1) / 2, (y2 - y1) / 2)
    rows = slice(int(max(0, y1 - margin)), int(min(height, y2 + margin)))
    columns = slice(int(max(0, x1 - margin)), int(min(width, x2 + margin)))
    scale = PANEL / max(rows.stop - rows.start, columns.stop - columns.start)
    size = tuple(max(1, round((part.stop - part.start) * scale)) for part in (columns, rows))
    return (rows, columns), (size[0], size[1])
