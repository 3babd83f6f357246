"""The classes for concept prompts and for the instances that a finder returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from ..embedded_image import EmbeddedImage


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


def _no_labels() -> np.ndarray:
    return np.zeros(0, np.int32)


@dataclass(frozen=True)
class Concept:
    """A description of objects. A concept selects every object in an image that fits it.

    Attributes:
        text: the name of the objects, such as "coffee cup"; None if only examples describe them.
        boxes: (n, 4) float32 x1,y1,x2,y2 around examples, in pixels of their image. n may be 0.
        labels: (n,) int32 label of each box: 1 for an example, 0 for a counter-example.
        examples_image: the image that contains the examples; None if it is the image that is searched.
        min_score: minimum score of an instance of this concept; None applies `Thresholds.score`.

    Example:
        >>> Concept("coffee cup").boxes.shape
        (0, 4)
    """

    text: str | None = None
    boxes: np.ndarray = field(default_factory=_no_boxes)
    labels: np.ndarray = field(default_factory=_no_labels)
    examples_image: EmbeddedImage | None = None
    min_score: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """The filters of a finder.

    Attributes:
        score: minimum detection score of an instance, 0 to 1.
        nms: maximum mask IoU of two instances, of one concept or of different concepts. Of two instances with a higher
            IoU, the instance with the lower score is removed. None keeps both. `Segmenter.find` applies this filter,
            not the finder.
        similarity: minimum cosine similarity of an instance to an example. For `examples.ExampleFinder` only.
        points_per_side: grid points along each side of the image, as in `everything.Grid`. For `ExampleFinder` only.
        points_per_batch: grid points decoded together, as in `everything.Grid`. For `ExampleFinder` only.
    """

    score: float = 0.5
    nms: float | None = None
    similarity: float = 0.9
    points_per_side: int = 32
    points_per_batch: int = 64


@dataclass(frozen=True)
class Instances:
    """The n instances of one concept in one image, in descending order of score.

    Attributes:
        logits: (n, h, w) float32 on the model's device. (h, w) is `Family.low_res_size`. The mask is logits > 0.
        boxes: (n, 4) float32 x1,y1,x2,y2 in pixels of the image.
        scores: (n,) float32 detection scores, 0 to 1.
    """

    logits: Tensor
    boxes: Tensor
    scores: Tensor
