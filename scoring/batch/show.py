"""Draws predictions over their images: a contact sheet to look at.

python -m scoring.batch show --predictions out/predictions.parquet --output out/overlay.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from PIL import Image
from tqdm import tqdm

from model import images, masks, prompts
from model.errors import BadInput
from model.images import ImageLimits
from model.prompts import Prompt
from scoring.batch import parquet
from scoring.overlay import Shown, overlay, sheet

IMAGES = 6


def picture(predictions: str, count: int = IMAGES) -> Image.Image:
    """The first `count` images that came by path or URL, each with the best mask of every prompt on it.

    predictions: a finished job's output, a file or a folder of parts. Raises BadInput when there is none to show.
    """
    shown: dict[str, list[Shown]] = {}
    for row in rows(predictions):
        if row["error"] or not row.get("image"):
            continue
        if row["image"] not in shown and len(shown) == count:
            break
        cells = (row.get(name) for name in ("input_points", "input_labels", "input_boxes", "mask_input"))
        asked = prompts.read(*cells) or [Prompt()] * len(row["predictions"])  # everything: an object each
        for prompt, prediction in zip(asked, row["predictions"], strict=True):
            best = max(prediction["mask_per_prediction"], key=lambda one: one["iou_score"])
            one = Shown(mask(best), best["iou_score"], prompt.box, prompt.points, prompt.labels)
            shown.setdefault(row["image"], []).append(one)
    if not shown:
        raise BadInput("image", "images by path or URL", "none that was scored")
    limits = ImageLimits(local_paths=True)
    found = tqdm(shown.items(), unit="image", desc="drawing", disable=None)
    return sheet([overlay(images.decode(images.read(source, limits), limits), some) for source, some in found])


def rows(predictions: str) -> Iterator[dict[str, Any]]:
    """The rows of a finished job's output, a file or a folder of parts."""
    fs, path = fsspec.core.url_to_fs(predictions)
    files = sorted(file for file in fs.find(path) if file.endswith(".parquet")) if fs.isdir(path) else [path]
    for file in files:
        with fs.open(file, "rb") as stream:
            for table in parquet.tables(stream, 64):
                yield from table.to_pylist()


def mask(answer: dict[str, Any]) -> np.ndarray:
    """The (h, w) bool mask of an answer, whichever encoding it came in."""
    text, size = answer["encoded_binary_mask"], (answer["size"][0], answer["size"][1])
    # Run lengths hold no comma, and are never "[]", which would be an unfinished number.
    encoding = "polygon" if "," in text or text == "[]" else "png" if text.startswith("iVBORw0KGgo") else "rle"
    return masks.decode(text, encoding, size)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scoring.batch show", description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", required=True, help="output of a batch job: a file or a folder of parts")
    parser.add_argument("--output", type=Path, required=True, help="picture to write, .png")
    parser.add_argument("--images", type=int, default=IMAGES, help="most images on it (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    try:
        drawn = picture(chosen.predictions, chosen.images)
    except (BadInput, OSError, KeyError, pa.ArrowException) as error:
        print(f"error: {chosen.predictions} cannot be shown: {error}", file=sys.stderr)
        return 2
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(chosen.output)
    print(f"drawn        {chosen.output}")
    return 0
