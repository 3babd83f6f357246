"""Draw predictions over their images, as a single picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
from PIL import Image
from tqdm import tqdm

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.prompts import Prompt, parse_prompts
from sam_endpoint.scoring.batch import parquet
from sam_endpoint.scoring.overlay import Shown, overlay, sheet

IMAGES = 6


def picture(predictions: str, count: int = IMAGES) -> Image.Image:
    """Draw the first images that were given by path or URL, each with the best mask of every prompt.

    Args:
        predictions: output of a finished job, a file or a folder of parts.
        count: maximum number of images.

    Raises:
        BadInput: there are no such images.
    """
    shown: dict[str, list[Shown]] = {}
    for row in rows(predictions):
        if row["error"] or not row.get("image"):
            continue
        if row["image"] not in shown and len(shown) == count:
            break
        cells = (row.get(name) for name in ("input_points", "input_labels", "input_boxes", "mask_input"))
        prompts = parse_prompts(*cells) or [Prompt()] * len(
            row["predictions"]
        )  # automatic mask generation: one prediction per object
        for prompt, prediction in zip(prompts, row["predictions"], strict=True):
            best = max(prediction["mask_per_prediction"], key=lambda candidate: candidate["iou_score"])
            drawing = Shown(mask(best), best["iou_score"], prompt.box, prompt.points, prompt.labels)
            shown.setdefault(row["image"], []).append(drawing)
    if not shown:
        raise BadInput("image", "images by path or URL", "none that was scored")
    reader = ImageReader(ImageLimits(local_paths=True))
    progress = tqdm(shown.items(), unit="image", desc="drawing", disable=None)
    return sheet([overlay(reader.open(reader.reference(image)).pixels(), masks) for image, masks in progress])


def rows(predictions: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished job's output, a file or a folder of parts."""
    fs, path = fsspec.core.url_to_fs(predictions)
    files = sorted(file for file in fs.find(path) if file.endswith(".parquet")) if fs.isdir(path) else [path]
    for file in files:
        with fs.open(file, "rb") as stream:
            for table in parquet.tables(stream, 64):
                yield from table.to_pylist()


def mask(answer: dict[str, Any]) -> np.ndarray:
    """Decode the (h, w) bool mask of a prediction; the encoding is detected."""
    text, size = answer["encoded_binary_mask"], (answer["size"][0], answer["size"][1])
    # Run lengths contain no comma and are never "[]", which would be an incomplete number.
    encoding = "polygon" if "," in text or text == "[]" else "png" if text.startswith("iVBORw0KGgo") else "rle"
    return masks.decode(text, encoding, size)
