"""Functions that write drawn scenes as a COCO data set and run `sam-endpoint evaluate` on it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.__main__ import main
from sam_endpoint.evaluation.geometry import Mask, bounding_box
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model import masks
from tests.conftest import ROOT, run_here
from tests.warm import python

CATEGORIES = [{"id": 1, "name": "odd"}, {"id": 2, "name": "even"}]


def write_images(folder: Path, count: int) -> dict[str, Any]:
    """Write the first held-out scenes as PNG files.

    Args:
        folder: folder for the files.
        count: number of scenes.

    Returns:
        The content of the COCO instances file of these images. Compressed and uncompressed run lengths alternate.
    """
    instances: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [dict(category) for category in CATEGORIES],
    }
    for image in SceneDataset(count):
        name = f"{image.id}.png"
        Image.fromarray(image.pixels).save(folder / name)
        height, width = image.pixels.shape[:2]
        instances["images"].append({"id": image.id, "file_name": name, "height": height, "width": width})
        for true in image.objects:
            number = len(instances["annotations"]) + 1
            x1, y1, x2, y2 = bounding_box(true.mask).tolist()
            compressed = {**true.rle, "counts": true.rle["counts"].decode("ascii")}
            instances["annotations"].append(
                {
                    "id": number,
                    "image_id": image.id,
                    "category_id": 2 - number % 2,
                    "segmentation": compressed if number % 2 else to_runs(true.mask),
                    "area": int(true.mask.sum()),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    return instances


def to_runs(mask: Mask) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths of a mask, counted pixel by pixel down the columns."""
    counts, value = [0], False
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def to_polygons(mask: Mask) -> tuple[list[list[float]], Mask]:
    """Return the outlines of a mask, and the mask that pycocotools fills from them."""
    outlines = masks.to_polygons(mask)
    return outlines, coco.decode(coco.merge(coco.frPyObjects(outlines, *mask.shape))).astype(bool)


def write_json(folder: Path, name: str, content: object) -> Path:
    """Write a value as JSON, and return the file."""
    (folder / name).write_text(json.dumps(content))
    return folder / name


def evaluate_here(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `evaluate` in this process and in a folder, without an MLflow run."""
    with contextlib.chdir(folder):
        return run_here(main, "evaluate", *arguments, "--no-log")


def evaluate_logged(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `evaluate` as a process in a folder. The MLflow runs are in a store in that folder."""
    words = [python(), "-m", "sam_endpoint", "evaluate", *map(str, arguments)]
    variables = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs.db"}
    return subprocess.run(words, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
