"""The figures of one object: how its masks from a box and from clicks compare with the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from model import masks
from model.prompts import Prompt
from model.segmenter import Embedding, Segmenter
from training.ground_truth import Mask, box_of

CLICKED = ("1 click", "2 clicks", "3 clicks", "4 clicks", "5 clicks")
PROMPTS = ("box", "box best of 3", "1 click", "1 click, oracle", *CLICKED[1:])
TOLERANCE = 0.008  # of the diagonal


@dataclass(frozen=True)
class Figure:
    """How good one mask is: IoU with the true one, boundary F, and the IoU that the model predicted."""

    iou: float
    boundary: float
    score: float


@dataclass(frozen=True)
class Judged:
    """figures: one for each of PROMPTS; box: (4,) float32 x1, y1, x2, y2; rle: COCO's compressed run lengths of the
    mask that was found from it."""

    figures: dict[str, Figure]
    box: NDArray[np.float32]
    rle: dict[str, Any]


def judge(segmenter: Segmenter, embedding: Embedding, true: Sequence[Mask]) -> list[Judged]:
    """The figures of each of an image's true masks, (height, width) bool, none of them empty.

    From its box: one mask, and of three the one with the best predicted score. From clicks: the first at its centre,
    of three masks the one with the best predicted score and the one that is best in truth (the oracle); each further
    one where `next_click` puts it, with the logits so far as mask input, answered by one mask.
    """
    boxes = [box_of(mask) for mask in true]
    asked = [Prompt(box=box) for box in boxes]
    single = segmenter.segment(embedding, asked, multimask_output=False)
    triple = segmenter.segment(embedding, asked)
    judged = []
    for mask, box, one, three in zip(true, boxes, single, triple, strict=True):
        (found,), best = segmenter.masks(one), int(three.scores.argmax())
        figures = {"box": compared(mask, found, one.scores[0])}
        figures["box best of 3"] = compared(mask, segmenter.masks(three)[best], three.scores[best])
        judged.append(Judged(figures, box, masks.to_rle(found)))

    prompts = [Prompt(np.array([centre(mask)], np.float32), np.array([1])) for mask in true]
    for count in range(1, len(CLICKED) + 1):
        answers = segmenter.segment(embedding, prompts, multimask_output=count == 1)
        for i, (mask, answer) in enumerate(zip(true, answers, strict=True)):
            candidates, best = segmenter.masks(answer), int(answer.scores.argmax())
            figures = judged[i].figures
            figures[CLICKED[count - 1]] = compared(mask, candidates[best], answer.scores[best])
            if count == 1:
                oracle = int(np.argmax([iou(mask, candidate) for candidate in candidates]))
                figures["1 click, oracle"] = compared(mask, candidates[oracle], answer.scores[oracle])
            point, label = next_click(mask, candidates[best])
            points, labels = prompts[i].points, prompts[i].labels
            assert points is not None and labels is not None
            points, labels = np.append(points, np.array([point], np.float32), 0), np.append(labels, label)
            prompts[i] = Prompt(points, labels, mask=answer.logits[best].float().cpu().numpy())
    return judged


def compared(true: Mask, found: Mask, score: float) -> Figure:
    """The figure of a found mask whose IoU was predicted to be `score`; masks are (height, width) bool."""
    return Figure(iou(true, found), boundary_f(true, found), float(score))


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two (height, width) masks; 1 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def boundary_f(true: Mask, found: Mask) -> float:
    """How well the outline of a found mask follows the true one's, 0 to 1; masks are (height, width) bool.

    F = 2 P R / (P + R): P is the share of the found boundary's pixels that lie within a tolerance of the true boundary,
    R the share of the true boundary's pixels within it of the found one. The tolerance is 0.8 % of the diagonal of the
    image, rounded up: 7 pixels for 640 x 480. As Csurka et al. (What is a good evaluation measure for semantic
    segmentation?, BMVC 2013) and Perazzi et al. (DAVIS, CVPR 2016) have it, with the tolerance of the latter's code.
    1 when neither has a boundary, 0 when only one has.
    """
    tolerance = math.ceil(TOLERANCE * math.hypot(*true.shape))
    a, b = boundary(true), boundary(found)
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    precision, recall = (
        float(np.isfinite(KDTree(there).query(here, distance_upper_bound=tolerance + 1e-6)[0]).mean())
        for here, there in ((b, a), (a, b))
    )
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> NDArray[np.int64]:
    """y, x of the pixels of a (height, width) mask with one beside, above or below that is not of it, (n, 2).

    Where the image's edge cuts the mask there is no boundary.
    """
    around = np.pad(mask, 1, constant_values=True)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def centre(region: Mask) -> tuple[int, int]:
    """x, y of the pixel of a (height, width) region that is farthest from what is outside it, the image's edge too."""
    x1, y1, x2, y2 = box_of(region).astype(int)
    depth = distance_transform_edt(np.pad(region[y1:y2, x1:x2], 1))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1 + x1, int(y) - 1 + y1


def next_click(true: Mask, found: Mask) -> tuple[tuple[int, int], int]:
    """The next click where the papers place it: the centre of the larger error, with label 1 if that was missed and
    0 if it was found too much."""
    missed, extra = true & ~found, found & ~true
    if missed.sum() >= extra.sum():
        return centre(missed if missed.any() else true), 1
    return centre(extra), 0
