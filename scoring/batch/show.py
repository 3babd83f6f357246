"""Draw the output of a batch job: masks and prompts over the first images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.prompts import Prompt, parse_prompts
from sam_endpoint.scoring.batch import parquet
from sam_endpoint.scoring.batch.parts import NOTES
from sam_endpoint.scoring.batch.progress import tracked
from sam_endpoint.scoring.batch.sources.listing import is_hidden
from sam_endpoint.scoring.overlay import Shown, overlay, sheet

IMAGES = 6  # default number of images


def picture(predictions: str, count: int = IMAGES) -> Image.Image:
    """Draw the first images, with the mask of highest predicted IoU for each prompt.

    Only images by path or URL can be drawn. Images have the same orientation as in the job. An image that can no longer
    be read is skipped.

    Args:
        predictions: output of a job: a Parquet file or a folder of parts.
        count: maximum number of images.

    Returns:
        A sheet with the images.

    Raises:
        BadInput: no image can be drawn, or `predictions` is not the output of a job.
    """
    shown: dict[str, list[Shown]] = {}
    for row in read_rows(predictions):
        if not {"predictions", "error"} <= row.keys():
            raise BadInput("predictions", "the output of `score`", "another table")
        if row["error"] or not row.get("image"):
            continue
        if row["image"] not in shown and len(shown) == count:
            break
        shown.setdefault(row["image"], []).extend(_drawings(row))
    reader, upright = ImageReader(ImageLimits(local_paths=True)), is_upright(predictions)
    pictures, problems = [], []
    for image, drawings in tracked(shown.items(), "drawing", "image"):
        try:
            pictures.append(overlay(_pixels(reader, image, upright, drawings), drawings))
        except BadInput as error:
            problems.append(error)
    if not pictures:
        raise problems[0] if problems else BadInput("image", "scored images by path or URL", "none")
    return sheet(pictures)


def _drawings(row: dict[str, Any]) -> Iterator[Shown]:
    """Yield the mask of highest predicted IoU for each prompt of a row."""
    cells = (row.get(name) for name in ("input_points", "input_labels", "input_boxes", "mask_input"))
    # Automatic mask generation returns one prediction per object, without a prompt.
    prompts = parse_prompts(*cells) or [Prompt()] * len(row["predictions"])
    for prompt, prediction in zip(prompts, row["predictions"], strict=True):
        best = max(prediction["mask_per_prediction"], key=lambda candidate: candidate["iou_score"])
        yield Shown(decode_mask(best), best["iou_score"], prompt.box, prompt.points, prompt.labels)


def _pixels(reader: ImageReader, image: str, upright: bool | None, drawings: list[Shown]) -> np.ndarray:
    """Return an image's pixels in the job's orientation; if it is unknown, in the orientation that fits the masks."""
    sizes = []
    for turned in (False, True) if upright is None else (upright,):
        pixels = reader.open(reader.reference(image, turned)).pixels()
        if all(drawing.mask.shape == pixels.shape[:2] for drawing in drawings):
            return pixels
        sizes.append(pixels.shape[:2])
    expected = "an image of {} x {} pixels, the size when it was scored".format(*drawings[0].mask.shape)
    raise BadInput("image", expected, "{} x {} pixels".format(*sizes[0]))


def is_upright(predictions: str) -> bool | None:
    """Return whether a job rotated its images according to their EXIF orientation.

    Args:
        predictions: output of the job.

    Returns:
        Whether the param `orientation` was `upright`; None if the output does not contain its params.
    """
    fs, path = fsspec.core.url_to_fs(predictions)
    try:
        if fs.isdir(path):
            job = json.loads(fs.cat_file(f"{path}/job.json"))
        else:
            with fs.open(path, "rb") as stream:
                job = json.loads((pq.read_schema(stream).metadata or {})[NOTES])["job"]
        return bool(job["params"]["orientation"] == "upright")
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


def read_rows(predictions: str) -> Iterator[dict[str, Any]]:
    """Read the output of a job row by row.

    Args:
        predictions: a Parquet file or a folder of parts.

    Yields:
        The rows, as dicts by column.

    Raises:
        pa.ArrowException: a file is not valid Parquet.
        OSError: a file cannot be read.
    """
    fs, path = fsspec.core.url_to_fs(predictions)
    files = [path]
    if fs.isdir(path):
        below = len(path.rstrip("/")) + 1
        files = sorted(file for file in fs.find(path) if file.endswith(".parquet") and not is_hidden(file[below:]))
    for file in files:
        with fs.open(file, "rb") as stream:
            for table in parquet.tables(stream, 64):
                yield from table.to_pylist()


def decode_mask(answer: dict[str, Any]) -> np.ndarray:
    """Decode the `(H, W)` bool mask of a prediction. The encoding is detected."""
    text, size = answer["encoded_binary_mask"], (answer["size"][0], answer["size"][1])
    # Run lengths contain no comma. "[]" is not valid as run lengths, because its number is incomplete.
    encoding = "polygon" if "," in text or text == "[]" else "png" if text.startswith("iVBORw0KGgo") else "rle"
    return masks.decode(text, encoding, size)
