"""The average precision of masks that are prompted with the boxes of a detector."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam_endpoint.model.mlflow import package
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Segmenter
from tests.evaluation.coco_files import evaluate_here, to_polygons, write_images, write_json


def test_average_precision_equals_that_of_pycocotools(tiny: Segmenter, tmp_path: Path) -> None:
    """The boxes are slightly wrong, and so are some categories.

    The data set has a crowd region, which is neither prompted nor counted as missed.
    """
    instances = write_images(tmp_path, 4)
    rng = np.random.default_rng(0)
    images = {entry["id"]: np.asarray(Image.open(tmp_path / entry["file_name"])) for entry in instances["images"]}
    for annotation in instances["annotations"][::3]:
        size = images[annotation["image_id"]].shape[:2]
        segmentation = annotation["segmentation"]
        uncompressed = isinstance(segmentation["counts"], list)
        rle = coco.frPyObjects(segmentation, *size) if uncompressed else segmentation
        annotation["segmentation"] = to_polygons(coco.decode(rle).astype(bool))[0]
    instances["annotations"][-1]["iscrowd"] = 1
    data = write_json(tmp_path, "data.json", instances)
    boxes = [
        {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"] if rng.random() < 0.8 else 3 - annotation["category_id"],
            "bbox": (np.maximum(annotation["bbox"], 2) + rng.uniform(-2, 2, 4)).clip(0.5).tolist(),
            "score": float(rng.random()),
        }
        for annotation in instances["annotations"]
    ]
    write_json(tmp_path, "boxes.json", boxes)
    done = evaluate_here(
        tmp_path, "--model", package.EMBEDDED, "--data", data, "--boxes", "boxes.json", "--output", "out.json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())

    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO(str(data))
        embeddings = {image_id: tiny.embed([image])[0] for image_id, image in images.items()}
        results = []
        for entry in boxes:
            size = images[entry["image_id"]].shape
            x, y, width, height = entry["bbox"]
            box = np.array([x, y, x + width, y + height]).clip(0, [*size[1::-1]] * 2).astype(np.float32)
            (answer,) = tiny.segment(embeddings[entry["image_id"]], [Prompt(box=box)], multimask_output=False)
            mask = coco.encode(np.asfortranarray(tiny.masks(answer)[0], np.uint8))
            results.append({key: entry[key] for key in ("image_id", "category_id", "score")} | {"segmentation": mask})
        evaluation = COCOeval(true, true.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = [None if value < 0 else pytest.approx(value, abs=1e-3) for value in evaluation.stats]
    assert list(report["average precision"].values()) == expected
    assert 0.3 < report["average precision"]["AP"] < report["average precision"]["AP50"] < 1
    assert f"{'AP50':18}{report['average precision']['AP50']:9.3f}" in done.stdout.splitlines()
