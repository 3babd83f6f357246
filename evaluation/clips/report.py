"""Write the results of an evaluation on clips to the terminal, to JSON and PNG files, and to an MLflow run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from sam_endpoint.evaluation.clips.protocol import METHODS, ClipResult
from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.scoring.overlay import Shown, curves, overlay

COLUMNS = 8  # frames of a clip in a drawing
SIDE = 150  # pixels of the longest side of a frame in a drawing
LABEL = 16  # pixels above each row


def summarize(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the means over all objects by method, rounded to four digits. The table is that of `object_table`."""
    means = table.drop(columns=["clip", "object"]).groupby("method", sort=False).mean()
    return {
        str(method): {str(name): round(float(value), 4) for name, value in row.items() if not np.isnan(value)}
        for method, row in means.iterrows()
    }


def format_summary(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Format the means by method as a table."""
    table = pd.DataFrame(summary).T
    return str(table.to_string(float_format=lambda value: f"{value:.3f}"))


def draw_curves(results: Sequence[ClipResult]) -> Image.Image:
    """Plot the mean of J and F over all objects by frame, a line per method. Longer clips are cut to the shortest."""
    length = min(len(hidden) for result in results for hidden in result.hidden.values())
    lines = {}
    for method in results[0].qualities:
        qualities = [quality for result in results for quality in result.qualities[method].values()]
        mean = np.mean([(quality.region[:length] + quality.contour[:length]) / 2 for quality in qualities], axis=0)
        lines[METHODS[method]] = (range(length), mean.tolist())
    return curves(lines, "frame", "mean of J and F")


def draw_clip_masks(result: ClipResult) -> Image.Image:
    """Draw frames of a clip with the true masks, and with the masks of each method. The result keeps its masks."""
    clip = result.clip
    assert clip is not None
    chosen = np.linspace(0, len(clip.frames) - 1, min(COLUMNS, len(clip.frames))).round().astype(int)
    numbers = clip.objects()
    rows: list[tuple[str, dict[int, Any]]] = [("true masks", {n: clip.labels == n for n in numbers})]
    for method, masks in result.masks.items():
        summaries = [quality.summary()["J&F"] for quality in result.qualities[method].values()]
        rows.append((f"{METHODS[method]}, J&F {np.mean(summaries):.2f}", masks))
    scale = SIDE / max(clip.frames.shape[1:3])
    height, width = (max(1, round(side * scale)) for side in clip.frames.shape[1:3])
    page = Image.new("RGB", (len(chosen) * (width + 2), len(rows) * (height + LABEL + 2)), (255, 255, 255))
    draw = ImageDraw.Draw(page)
    for row, (title, by_object) in enumerate(rows):
        top = row * (height + LABEL + 2)
        draw.text((2, top), f"{result.name}: {title}", fill=(0, 0, 0), font_size=12)
        for column, frame in enumerate(chosen):
            shown = [Shown(_masks_of(by_object, number)[frame], None) for number in numbers]
            picture = overlay(clip.frames[frame], shown).resize((width, height))
            left = column * (width + 2)
            page.paste(picture, (left, top + LABEL))
            place = (left + 3, top + LABEL + height - 14)
            draw.text(place, str(frame), fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0), font_size=11)
    return page


def _masks_of(by_object: Mapping[int, Any], number: int) -> Sequence[Mask]:
    masks: Sequence[Mask] = by_object[number]
    return masks


def draw_sheet(results: Sequence[ClipResult]) -> Image.Image:
    """Arrange the drawings of all clips that keep their masks, one below the other."""
    drawings = [draw_clip_masks(result) for result in results if result.clip is not None]
    width, height = max(drawing.width for drawing in drawings), sum(drawing.height for drawing in drawings)
    page = Image.new("RGB", (width, height), (255, 255, 255))
    top = 0
    for drawing in drawings:
        page.paste(drawing, (0, top))
        top += drawing.height
    return page


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a report to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
