"""Drawn scenes as a COCO data set, and the evaluation's command on it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from model import masks
from tests.conftest import ROOT, run_here
from tests.warm import python
from training import evaluate
from training.ground_truth import Scenes, box_of

CATEGORIES = [{"id": 1, "name": "odd"}, {"id": 2, "name": "even"}]


def data_set(folder: Path, count: int) -> dict[str, Any]:
    """Writes the first held-out scenes as PNGs; the instances file's content, its masks as COCO's compressed and
    uncompressed run lengths in turn."""
    given: dict[str, Any] = {"images": [], "annotations": [], "categories": [dict(one) for one in CATEGORIES]}
    for picture in Scenes(count):
        name = f"{picture.id}.png"
        Image.fromarray(picture.image).save(folder / name)
        height, width = picture.image.shape[:2]
        given["images"].append({"id": picture.id, "file_name": name, "height": height, "width": width})
        for thing in picture.things:
            number = len(given["annotations"]) + 1
            x1, y1, x2, y2 = box_of(thing.mask).tolist()
            text = {**thing.rle, "counts": thing.rle["counts"].decode("ascii")}
            given["annotations"].append(
                {
                    "id": number,
                    "image_id": picture.id,
                    "category_id": 2 - number % 2,
                    "segmentation": text if number % 2 else runs(thing.mask),
                    "area": int(thing.mask.sum()),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    return given


def runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths, counted down the columns one pixel at a time."""
    counts, value = [0], False
    for pixel in mask.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def polygons(mask: np.ndarray) -> tuple[list[list[float]], np.ndarray]:
    """A mask's outlines and the mask that pycocotools makes of them."""
    outlines = masks.to_polygons(mask)
    return outlines, coco.decode(coco.merge(coco.frPyObjects(outlines, *mask.shape))).astype(bool)


def write(folder: Path, name: str, content: object) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


def judged(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`training.evaluate` in a folder of its own, without a run."""
    with contextlib.chdir(folder):
        return run_here(evaluate.main, *arguments, "--no-log")


def logged(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m training.evaluate` as a user runs it, who has its runs in a store of that folder."""
    words = [python(), "-m", "training.evaluate", *map(str, arguments)]
    variables = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs.db"}
    return subprocess.run(words, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
