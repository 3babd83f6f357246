"""The evaluation protocol: derive prompts from true masks, predict masks from the prompts, and compare the masks."""

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
    """The quality of a predicted mask.

    Attributes:
        iou: The IoU with the true mask.
        boundary_f: The boundary F-measure with the true mask (see `geometry.boundary_f`).
        score: The IoU that the model predicted.
    """

    iou: float
    boundary_f: float
    score: float


@dataclass(frozen=True)
class ObjectResult:
    """The results of one true object.

    Attributes:
        qualities: For each prompt in PROMPTS, the quality of the predicted mask.
        box: The box prompt, `(4,)` float32, x1, y1, x2, y2 in pixels.
        rle: The predicted mask for the prompt `box`, as COCO's compressed run lengths.
    """

    qualities: dict[str, MaskQuality]
    box: NDArray[np.float32]
    rle: masks.RunLengths


def measure_objects(segmenter: Segmenter, embedding: Embedding, true_masks: Sequence[Mask]) -> list[ObjectResult]:
    """Segment the objects of an image with simulated prompts, and compare the masks with the true masks.

    The prompts in PROMPTS are:

    - `box`: the bounding box of the true mask, with a single mask as output.
    - `box best of 3`: the same box with three masks as output. The mask with the highest predicted IoU is measured.
    - `1 click`: a click at the `center` of the true mask, with three masks as output. The mask with the highest
      predicted IoU is measured.
    - `1 click, oracle`: the same click. The mask with the highest true IoU is measured.
    - `2 clicks` to `5 clicks`: each further click comes from `next_click`. The mask input is the logits of the previous
      mask, and the output is a single mask.

    Args:
        segmenter: The model.
        embedding: The embedding of the image.
        true_masks: `(H, W)` bool each, none of them empty.

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
    """Return a result for each true mask. Its qualities hold the two box prompts only."""
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
    """Measure the quality of a predicted mask.

    Args:
        true: `(H, W)` bool.
        predicted: `(H, W)` bool.
        score: The predicted IoU.
    """
    return MaskQuality(iou(true, predicted), boundary_f(true, predicted), float(score))


def next_click(true: Mask, predicted: Mask) -> tuple[tuple[int, int], int]:
    """Place the next click at the centre of the larger error region.

    All false negative pixels together make one region, and all false positive pixels together make the other. If the
    predicted mask has no error, the click is at the centre of the true mask, with label 1.

    The SAM papers simulate interactive segmentation with such clicks (Kirillov et al., "Segment Anything", ICCV 2023,
    appendix D.1; Ravi et al., "SAM 2", 2024).

    Args:
        true: `(H, W)` bool.
        predicted: `(H, W)` bool.

    Returns:
        The click (x, y) and its label: 1 for a false negative region (foreground), 0 for a false positive region
        (background).

    Example:
        >>> true, predicted = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
        >>> true[2:7, 2:7] = True
        >>> (x, y), label = next_click(true, predicted)
        >>> int(x), int(y), label
        (4, 4, 1)
    """
    missed, extra = true & ~predicted, predicted & ~true
    if missed.sum() >= extra.sum():
        return center(missed if missed.any() else true), 1
    return center(extra), 0
