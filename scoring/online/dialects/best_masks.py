"""Select the best mask of each prompt, and trace the contours of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.masks import CroppedMask, to_polygons
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import PROMPTS_AT_ONCE
from sam_endpoint.model.segmenter import Segmentation

LOGITS_BYTES = 8  # memory per pixel: float32 logits, and their copy in the response
NUMBER_BYTES = 8  # length of one coordinate in the JSON text
MAX_PIXELS = {"binary": 50_000_000, "json": 1_000_000_000}  # pixels of all masks of one response, by response format


@dataclass(frozen=True)
class BestMask:
    """The mask with the best predicted score among the masks of one prompt.

    Attributes:
        mask: the mask, or (height, width) float32 logits if the client requests logits.
        score: predicted IoU, about 0 to 1.
        logits: (h, w) float32 low-resolution logits.
    """

    mask: np.ndarray | CroppedMask
    score: float
    logits: np.ndarray

    def array(self) -> np.ndarray:
        """Return the mask at the image's size: (height, width) bool or float32."""
        return self.mask.whole() if isinstance(self.mask, CroppedMask) else self.mask


def best_masks(
    engine: Engine,
    image: EmbeddedImage,
    prompts: list[Prompt],
    multimask_output: bool,
    call: Call,
    as_logits: bool = False,
) -> list[BestMask]:
    """Return the best mask of each prompt.

    Args:
        engine: engine of the model.
        image: image to segment.
        prompts: prompts on the image.
        multimask_output: whether the model predicts three masks for each prompt instead of one.
        call: limits and times the work.
        as_logits: whether to return float32 logits instead of masks.

    Raises:
        BadInput: all masks together are too large for one response.
    """
    height, width = image.size
    max_pixels = MAX_PIXELS["binary" if as_logits else "json"]
    if height * width * len(prompts) > max_pixels:
        expected = f"prompts whose masks have at most {max_pixels} pixels together"
        raise BadInput("prompts", expected, f"{len(prompts)} prompts on an image of {width} x {height} pixels")
    if as_logits:
        call.keep(LOGITS_BYTES * height * width * len(prompts))
    results = []
    for piece in call.pieces(len(prompts), PROMPTS_AT_ONCE):
        for segmentation in engine.segment(image, prompts[piece], multimask_output, call):
            best = int(segmentation.scores.argmax())
            chosen = Segmentation(
                segmentation.logits[best : best + 1], segmentation.scores[best : best + 1], segmentation.size
            )
            with call.stage("mask"):
                mask = engine.full_logits(chosen)[0].cpu().numpy() if as_logits else engine.cropped_masks(chosen)[0]
            results.append(BestMask(mask, float(chosen.scores[0]), chosen.logits[0].float().cpu().numpy()))
    return results


def polygons(mask: np.ndarray | CroppedMask, call: Call) -> list[list[list[float]]]:
    """Return the outer contours of a mask, each as a list of [x, y] in pixels.

    Args:
        mask: a bool mask (height, width), or a cropped mask.
        call: counts the coordinates towards the size of the response.

    Raises:
        BadRequest: the response is too large.
    """
    with call.stage("render"):
        contours = to_polygons(mask.whole() if isinstance(mask, CroppedMask) else mask)
    # Between the stages, since a request that waits for memory must not keep its turn at the processors.
    call.count_answer(NUMBER_BYTES * sum(map(len, contours)))
    with call.stage("render"):
        return [[list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)] for flat in contours]


def largest_polygon(mask: np.ndarray | CroppedMask, call: Call) -> list[list[float]]:
    """Return the contour with the largest area as [[x, y], ...], or an empty list for an empty mask.

    Args:
        mask: a bool mask (height, width), or a cropped mask.
        call: counts the coordinates towards the size of the response.
    """
    return max(polygons(mask, call), key=polygon_area, default=[])


def polygon_area(polygon: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Return the area of a polygon `[[x, y], ...]`, in square pixels."""
    x, y = np.asarray(polygon).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
