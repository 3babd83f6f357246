"""Draw the results of an evaluation: plots of the metrics, and objects with their true and predicted masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.evaluation.ground_truth import AnnotatedImage, TrueObject
from sam_endpoint.evaluation.metrics import SCORED, calibration_table, size_groups
from sam_endpoint.evaluation.protocol import CLICK_PROMPTS, ObjectResult
from sam_endpoint.model import masks
from sam_endpoint.scoring.overlay import Shown, curves, overlay, sheet

PANEL = 200  # pixels, the width and height of each of the two images of a case
TYPICAL_QUANTILES = (0.9, 0.5, 0.1)  # of the IoU of good, middling and bad cases
TYPICAL_COLUMNS = 3
SHARES = [step / 100 for step in range(101)]  # IoU values on the axis of the distribution


@dataclass(frozen=True)
class Case:
    """An object with a high or low IoU, as an image.

    Attributes:
        iou: The IoU of the mask from the box with the true mask.
        image_name: The name of the image in reports.
        image: The true mask and the mask from the box, side by side.
    """

    iou: float
    image_name: str
    image: Image.Image


def draw_case(image: AnnotatedImage, true: TrueObject, result: ObjectResult) -> Case:
    """Draw an object twice, side by side: with its true mask, and with the mask from its box.

    Args:
        image: The image. The drawing shows the object with a margin of half its size.
        true: The object.
        result: The results of the object.
    """
    height, width = image.pixels.shape[:2]
    x1, y1, x2, y2 = result.box
    margin = max(16, (x2 - x1) / 2, (y2 - y1) / 2)
    x_min, y_min = int(max(0, x1 - margin)), int(max(0, y1 - margin))
    x_max, y_max = int(min(width, x2 + margin)), int(min(height, y2 + margin))
    region = slice(y_min, y_max), slice(x_min, x_max)
    scale = PANEL / max(x_max - x_min, y_max - y_min)
    size = max(1, round((x_max - x_min) * scale)), max(1, round((y_max - y_min) * scale))

    def resize(mask: Mask) -> Mask:
        return np.asarray(Image.fromarray(mask[region]).resize(size, Image.Resampling.NEAREST))

    pixels = np.asarray(Image.fromarray(image.pixels[region]).resize(size))
    quality = result.qualities["box"]
    box = (result.box - np.array([x_min, y_min, x_min, y_min], np.float32)) * np.float32(scale)
    page = Image.new("RGB", (2 * PANEL + 4, PANEL + 32), (255, 255, 255))
    page.paste(overlay(pixels, [Shown(resize(true.mask), None)]), (0, 32))
    page.paste(overlay(pixels, [Shown(resize(masks.from_rle(result.rle)), None, box)]), (PANEL + 4, 32))
    draw = ImageDraw.Draw(page)
    draw.text((0, 0), f"{image.name}, {true.name}"[:60], fill=(0, 0, 0), font_size=13)
    draw.text((0, 15), "true", fill=(0, 0, 0), font_size=13)
    draw.text((PANEL + 4, 15), f"IoU {quality.iou:.2f}, predicted {quality.score:.2f}", fill=(0, 0, 0), font_size=13)
    return Case(quality.iou, image.name, page)


def draw_cases(cases: Sequence[Case]) -> Image.Image:
    """Arrange cases on a sheet with three columns."""
    return sheet([case.image for case in cases], columns=3)


def draw_typical(cases: Sequence[Case]) -> Image.Image:
    """Draw a row of good cases, a row of middling cases and a row of bad cases.

    The IoU of the good cases is near the quantile 0.9 of all cases, that of the middling cases near the median, and
    that of the bad cases near the quantile 0.1. The cases of a row are from different images.

    Args:
        cases: Objects of a data set, at least one.
    """
    rows = []
    for quantile in TYPICAL_QUANTILES:
        iou = np.quantile([case.iou for case in cases], quantile)
        nearest = sorted(cases, key=lambda case: abs(case.iou - iou))
        by_image: dict[str, Case] = {}
        for case in nearest:
            by_image.setdefault(case.image_name, case)
        rows.append(sheet([case.image for case in list(by_image.values())[:TYPICAL_COLUMNS]], TYPICAL_COLUMNS))
    return sheet(rows, columns=1)


def draw_masks(image: AnnotatedImage, results: Sequence[ObjectResult]) -> Image.Image:
    """Draw an image with the masks from the boxes of all its objects."""
    shown = [Shown(masks.from_rle(result.rle), result.qualities["box"].score, result.box) for result in results]
    return overlay(image.pixels, shown)


def draw_summary(models: Mapping[str, pd.DataFrame]) -> Image.Image:
    """Draw three plots side by side: IoU by number of clicks, true by predicted IoU, and the distribution of IoU.

    For a single model, the lines are sizes of objects or prompts. For several models, each model has a line.

    Args:
        models: The rows of `metrics.object_row` by the name of the model.
    """
    (objects, *more_models) = models.values()
    groups = models if more_models else dict(size_groups(objects))
    counts = range(1, len(CLICK_PROMPTS) + 1)
    clicks = {
        name: (counts, [float(group[prompt].mean()) for prompt in CLICK_PROMPTS]) for name, group in groups.items()
    }
    bins = {name: calibration_table(table) for name, table in models.items()}
    calibration = {name: (table["score"], table["iou"]) for name, table in bins.items()}
    if more_models:
        columns, title = {name: table["box"] for name, table in models.items()}, "IoU from a box"
    else:
        columns, title = {name: objects[name] for name in SCORED}, "IoU"
    distribution = {
        name: (SHARES, [float((column <= share).mean()) for share in SHARES]) for name, column in columns.items()
    }
    panels = [
        curves(clicks, "clicks", "mean IoU"),
        curves(calibration, "predicted IoU", "IoU", True),
        curves(distribution, title, "share of things up to it"),
    ]
    return sheet(panels, columns=3)
