"""The evaluation protocol: the prompts that each true mask gives, and the quality of the masks that they lead to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_endpoint.evaluation.geometry import Mask, boundary_f, bounding_box, center, iou
from sam_endpoint.model import masks
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.segmenter import Embedding, Segmenter

CLICK_PROMPTS = ("1 click", "2 clicks", "3 clicks", "4 clicks", "5 clicks")
PROMPTS = ("box", "box best of 3", "1 click", "1 click, oracle", *CLICK_PROMPTS[1:])


@dataclass(frozen=True)
class MaskQuality:
    """How good one mask is: IoU and boundary F with the true mask, and the IoU that the model predicted."""

    iou: float
    boundary_f: float
    score: float


@dataclass(frozen=True)
class ObjectResult:
    """The results of one true object.

    Attributes:
        qualities: The quality of the mask from each of PROMPTS.
        box: The box prompt, x1, y1, x2, y2, (4,) float32.
        rle: The mask from the box as COCO's compressed run lengths.
    """

    qualities: dict[str, MaskQuality]
    box: NDArray[np.float32]
    rle: masks.RunLengths


def measure_objects(segmenter: Segmenter, embedding: Embedding, true_masks: Sequence[Mask]) -> list[ObjectResult]:
    """Segment the objects of an image by simulated prompts, and compare the masks with the true masks.

    The box is the bounding box of the true mask: it gives a single mask, and three masks of which the best by predicted
    score counts. The first click is at the mask's centre: of three masks the best by predicted score counts, and the
    best by true IoU (the oracle). Each further click is placed by `next_click`, with the logits so far as mask input,
    and gives a single mask.

    Args:
        true_masks: (height, width) bool each, none of them empty.

    Returns:
        A result for each true mask.
    """
    results = _measure_boxes(segmenter, embedding, true_masks)
    prompts = [Prompt(np.array([center(mask)], np.float32), np.array([1])) for mask in true_masks]
    for count, name in enumerate(CLICK_PROMPTS, 1):
        answers = segmenter.segment(embedding, prompts, multimask_output=count == 1)
        for i, (true, answer) in enumerate(zip(true_masks, answers, strict=True)):
            candidates, best = segmenter.masks(answer), int(answer.scores.argmax())
            qualities = results[i].qualities
            qualities[name] = compare(true, candidates[best], answer.scores[best])
            if count == 1:
                oracle = int(np.argmax([iou(true, candidate) for candidate in candidates]))
                qualities["1 click, oracle"] = compare(true, candidates[oracle], answer.scores[oracle])
            point, label = next_click(true, candidates[best])
            points, labels = prompts[i].points, prompts[i].labels
            assert points is not None and labels is not None
            points, labels = np.append(points, np.array([point], np.float32), 0), np.append(labels, label)
            prompts[i] = Prompt(points, labels, mask=answer.logits[best].float().cpu().numpy())
    return results


def _measure_boxes(segmenter: Segmenter, embedding: Embedding, true_masks: Sequence[Mask]) -> list[ObjectResult]:
    boxes = [bounding_box(mask) for mask in true_masks]
    prompts = [Prompt(box=box) for box in boxes]
    single_answers = segmenter.segment(embedding, prompts, multimask_output=False)
    triple_answers = segmenter.segment(embedding, prompts)
    results = []
    for true, box, single, triple in zip(true_masks, boxes, single_answers, triple_answers, strict=True):
        (mask,), best = segmenter.masks(single), int(triple.scores.argmax())
        qualities = {"box": compare(true, mask, single.scores[0])}
        qualities["box best of 3"] = compare(true, segmenter.masks(triple)[best], triple.scores[best])
        results.append(ObjectResult(qualities, box, masks.to_rle(mask)))
    return results


def compare(true: Mask, predicted: Mask, score: float) -> MaskQuality:
    """Return the quality of a predicted mask with a predicted IoU of `score`; masks are (height, width) bool."""
    return MaskQuality(iou(true, predicted), boundary_f(true, predicted), float(score))


def next_click(true: Mask, predicted: Mask) -> tuple[tuple[int, int], int]:
    """Return the next click as the SAM papers place it: the centre of the larger error.

    Args:
        true: (height, width) bool.
        predicted: (height, width) bool.

    Returns:
        x, y and the label: 1 if the error is a missed region, 0 if it is an extra region.
    """
    missed, extra = true & ~predicted, predicted & ~true
    if missed.sum() >= extra.sum():
        return center(missed if missed.any() else true), 1
    return center(extra), 0
