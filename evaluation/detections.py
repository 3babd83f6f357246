"""Segment the boxes of a detector, and compute COCO's average precision of masks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam_endpoint.evaluation.coco import CocoAnnotation, CocoDataset, read_json
from sam_endpoint.evaluation.ground_truth import SIZES
from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData, kind
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.prompts.parsing import MAX_COORDINATE
from sam_endpoint.model.segmenter import Embedding, Segmenter

PRECISIONS = ("AP", "AP50", "AP75", *(f"AP {size}" for size in SIZES))
RECALLS = ("AR 1", "AR 10", "AR 100", *(f"AR {size}" for size in SIZES))


@dataclass(frozen=True)
class DetectedBox:
    """One box of a detector.

    Attributes:
        name: The name in reports, for example `results[12]`.
        image_id: The id of the image in the COCO file.
        category_id: The id of the category in the COCO file.
        box: `(4,)` float32, x1, y1, x2, y2 in pixels.
        score: The detector's score.
    """

    name: str
    image_id: object
    category_id: object
    box: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class DetectedMask:
    """The mask of a detected object.

    Attributes:
        image_id: The id of the image in the COCO file.
        category_id: The id of the category in the COCO file.
        score: The detector's score.
        rle: The mask as COCO's compressed run lengths.
    """

    image_id: object
    category_id: object
    score: float
    rle: masks.RunLengths


def read_detections(file: Path, dataset: CocoDataset) -> dict[object, list[DetectedBox]]:
    """Read the boxes in a COCO results file (https://cocodataset.org/#format-results).

    Args:
        file: A JSON file, `[{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]`.
        dataset: The data set that the results belong to. Malformed results are counted in its problems.

    Returns:
        The boxes by image id.

    Raises:
        BadData: The file has no valid result.
    """
    expected = "expected COCO results, a list of objects with image_id, category_id, bbox and score"
    content = read_json(file, expected)
    if not isinstance(content, list):
        raise BadData(f"'{file}': {expected}; got {kind(content)}")
    detections: dict[object, list[DetectedBox]] = {}
    malformed = 0
    for position, entry in enumerate(content):
        name = f"results[{position}]"
        try:
            detection = _read_detection(name, entry)
            known_image = detection.image_id in dataset.images
            known_category = detection.category_id in dataset.categories
        except (KeyError, TypeError, ValueError):
            malformed += 1
            dataset.problems.add("results without a good bbox, score, image_id and category_id, left out", name)
            continue
        if not (known_image and known_category):
            missing = "categories" if known_image else "images"
            dataset.problems.add(f"results of {missing} that the file lacks, left out", name)
            continue
        detections.setdefault(detection.image_id, []).append(detection)
    if malformed == len(content):
        raise BadData(f"'{file}': {expected}; got {kind(content)} without a valid result")
    return detections


def _read_detection(name: str, entry: Any) -> DetectedBox:
    """Read one entry of a results file. Raises KeyError, TypeError or ValueError if the entry is malformed."""
    x, y, width, height = (float(number) for number in entry["bbox"])
    score = float(entry["score"])
    if not (width > 0 and height > 0 and max(abs(x), abs(y), width, height) <= MAX_COORDINATE and score == score):
        raise ValueError("bbox or score out of range")
    box = np.array([x, y, x + width, y + height], np.float32)
    return DetectedBox(name, entry["image_id"], entry["category_id"], box, score)


def clip_to_image(detections: Sequence[DetectedBox], size: tuple[int, int], dataset: CocoDataset) -> list[DetectedBox]:
    """Clip boxes to an image, and leave out boxes that are outside.

    Args:
        detections: The boxes.
        size: The (height, width) of the image.
        dataset: The data set. Clipped boxes and boxes outside the image are counted in its problems.
    """
    clipped = []
    for detection in detections:
        box = np.clip(detection.box, 0, np.array([size[1], size[0]] * 2, np.float32))
        if box[2] <= box[0] or box[3] <= box[1]:
            dataset.problems.add("results with a box outside the image, left out", detection.name)
            continue
        if np.abs(box - detection.box).max() > 1:
            dataset.problems.add("results with a box over the image's edge, cut there", detection.name)
        clipped.append(replace(detection, box=box))
    return clipped


def segment_detections(
    segmenter: Segmenter, embedding: Embedding, detections: Sequence[DetectedBox]
) -> list[DetectedMask]:
    """Segment boxes, with a single mask per box (`multimask_output=False`).

    Args:
        segmenter: The model.
        embedding: The embedding of the image.
        detections: The boxes.
    """
    prompts = [Prompt(box=detection.box) for detection in detections]
    answers = segmenter.segment(embedding, prompts, multimask_output=False)
    return [
        DetectedMask(
            detection.image_id,
            detection.category_id,
            detection.score,
            masks.to_rle(segmenter.cropped_masks(answer)[0]),
        )
        for detection, answer in zip(detections, answers, strict=True)
    ]


def average_precision(
    annotations: Sequence[CocoAnnotation],
    category_ids: Iterable[object],
    image_ids: Sequence[object],
    detected_masks: Sequence[DetectedMask],
) -> dict[str, float | None]:
    """Compute COCO's twelve metrics of masks (https://cocodataset.org/#detection-eval), with pycocotools.

    `AP` is the average precision, averaged over the categories and over the IoU thresholds 0.5, 0.55, ..., 0.95. The
    score of a mask is the score of its box, as in the zero-shot instance segmentation of the Segment Anything paper
    (Kirillov et al., ICCV 2023).

    Args:
        annotations: The ground truth. Annotations of other images and categories are ignored.
        category_ids: The ids of the evaluated categories.
        image_ids: The ids of the evaluated images.
        detected_masks: The masks of all detected objects in these images.

    Returns:
        The metrics by name (PRECISIONS and RECALLS), 0 to 1; None if the ground truth has no object of that size.
    """
    # Ids start at 1, because pycocotools treats a match with the id 0 as no match.
    image_numbers = {image_id: number for number, image_id in enumerate(image_ids, 1)}
    category_numbers = {category_id: number for number, category_id in enumerate(category_ids, 1)}
    annotations = [
        annotation
        for annotation in annotations
        if annotation.image_id in image_numbers and annotation.category_id in category_numbers
    ]
    true, predicted = COCO(), COCO()
    true.dataset["annotations"] = [
        {
            "id": number,
            "image_id": image_numbers[annotation.image_id],
            "category_id": category_numbers[annotation.category_id],
            "segmentation": annotation.rle,
            "area": annotation.area,
            "iscrowd": int(annotation.crowd),
        }
        for number, annotation in enumerate(annotations, 1)
    ]
    predicted.dataset["annotations"] = [
        {
            "id": number,
            "image_id": image_numbers[mask.image_id],
            "category_id": category_numbers[mask.category_id],
            "segmentation": mask.rle,
            "area": float(coco.area(mask.rle)),
            "score": mask.score,
        }
        for number, mask in enumerate(detected_masks, 1)
    ]
    # pycocotools needs the sizes of the images, although the run lengths contain them.
    sizes = {annotation.image_id: annotation.rle["size"] for annotation in annotations}
    sizes |= {mask.image_id: mask.rle["size"] for mask in detected_masks}
    images = []
    for image_id, number in image_numbers.items():
        height, width = sizes.get(image_id, (0, 0))
        images.append({"id": number, "height": height, "width": width})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        for index in (true, predicted):
            index.dataset["images"] = images
            index.dataset["categories"] = [{"id": number} for number in category_numbers.values()]
            index.createIndex()
        evaluation = COCOeval(true, predicted, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {
        name: None if value < 0 else round(float(value), 4)
        for name, value in zip((*PRECISIONS, *RECALLS), evaluation.stats, strict=True)
    }
