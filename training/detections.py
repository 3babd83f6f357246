"""Boxes of a detector to masks, and COCO's AP of these."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model import masks
from model.errors import kind
from model.prompts import FARTHEST, Prompt
from model.segmenter import Embedding, Segmenter
from scoring.batch.sources import BadTable
from training.coco import Coco, parsed

SIZES = ("small", "medium", "large")
STATS = ("AP", "AP50", "AP75", *(f"AP {size}" for size in SIZES))
STATS = (*STATS, "AR 1", "AR 10", "AR 100", *(f"AR {size}" for size in SIZES))


@dataclass(frozen=True)
class Detection:
    """A box, (4,) float32 x1, y1, x2, y2 in pixels, its image, its category and the detector's score."""

    name: str
    image: object
    category: object
    box: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class Found:
    """A detection's mask as COCO's compressed run lengths."""

    detection: Detection
    rle: dict[str, Any]


def read(file: Path, truth: Coco) -> dict[object, list[Detection]]:
    """The boxes in a COCO results file, `[{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]`,
    by image. What is wrong with one is counted in the truth's problems. Raises BadTable for a file without any."""
    expected = "expected COCO results, a list of objects with image_id, category_id, bbox and score"
    given = parsed(file, expected)
    if not isinstance(given, list):
        raise BadTable(f"'{file}': {expected}; got {kind(given)}")
    found: dict[object, list[Detection]] = {}
    broken = 0
    for position, one in enumerate(given):
        name = f"results[{position}]"
        try:
            x, y, width, height = (float(number) for number in one["bbox"])
            image, category, score = one["image_id"], one["category_id"], float(one["score"])
            if not (width > 0 and height > 0 and max(abs(x), abs(y), width, height) <= FARTHEST and score == score):
                raise ValueError
            known = image in truth.images, category in truth.categories
        except (KeyError, TypeError, ValueError):
            broken += 1
            truth.problems.add("results without a good bbox, score, image_id and category_id, left out", name)
            continue
        if not all(known):
            what = "categories" if known[0] else "images"
            truth.problems.add(f"results of {what} that the file lacks, left out", name)
            continue
        box = np.array([x, y, x + width, y + height], np.float32)
        found.setdefault(image, []).append(Detection(name, image, category, box, score))
    if broken == len(given):
        raise BadTable(f"'{file}': {expected}; got {kind(given)} with none such")
    return found


def within(detections: list[Detection], size: tuple[int, int], truth: Coco) -> list[Detection]:
    """The detections in an image of `size` (height, width), cut at its edges; those wholly outside are left out."""
    kept = []
    for one in detections:
        box = np.clip(one.box, 0, np.array([size[1], size[0]] * 2, np.float32))
        if box[2] <= box[0] or box[3] <= box[1]:
            truth.problems.add("results with a box outside the image, left out", one.name)
            continue
        if np.abs(box - one.box).max() > 1:
            truth.problems.add("results with a box over the image's edge, cut there", one.name)
        kept.append(Detection(one.name, one.image, one.category, box, one.score))
    return kept


def segmented(segmenter: Segmenter, embedding: Embedding, detections: list[Detection]) -> list[Found]:
    """Each detection with the mask of its box."""
    answers = segmenter.segment(embedding, [Prompt(box=one.box) for one in detections], multimask_output=False)
    return [
        Found(one, masks.to_rle(segmenter.cuts(answer)[0])) for one, answer in zip(detections, answers, strict=True)
    ]


def average_precision(truth: Coco, seen: Sequence[object], found: Sequence[Found]) -> dict[str, float | None]:
    """COCO's twelve figures of masks (`iouType` segm) on the images whose ids are `seen`, by pycocotools; None where
    there is nothing of a size. A mask's score is its detection's, as in the segment-anything paper."""
    image_ids = {image: number for number, image in enumerate(seen, 1)}
    category_ids = {category: number for number, category in enumerate(truth.categories, 1)}
    counted = [one for one in truth.truths if one.image in image_ids and one.category in category_ids]
    true, answered = COCO(), COCO()
    # Ids from 1 on, since pycocotools takes a match with an annotation of id 0 for none.
    true.dataset["annotations"] = [
        {
            "id": number,
            "image_id": image_ids[one.image],
            "category_id": category_ids[one.category],
            "segmentation": one.rle,
            "area": one.area,
            "iscrowd": int(one.crowd),
        }
        for number, one in enumerate(counted, 1)
    ]
    answered.dataset["annotations"] = [
        {
            "id": number,
            "image_id": image_ids[one.detection.image],
            "category_id": category_ids[one.detection.category],
            "segmentation": one.rle,
            "area": float(coco.area(one.rle)),
            "score": one.detection.score,
        }
        for number, one in enumerate(found, 1)
    ]
    # pycocotools asks for the sizes of images, though run lengths have their own.
    sizes = {one.image: one.rle["size"] for one in counted} | {one.detection.image: one.rle["size"] for one in found}
    images = [
        {"id": number, "height": height, "width": width}
        for image, number in image_ids.items()
        for height, width in [sizes.get(image, (0, 0))]
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # where pycocotools tells its progress
        for one in (true, answered):
            one.dataset["images"] = images
            one.dataset["categories"] = [{"id": number} for number in category_ids.values()]
            one.createIndex()
        evaluation = COCOeval(true, answered, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: None if stat < 0 else round(float(stat), 4) for name, stat in zip(STATS, evaluation.stats, strict=True)
    }
