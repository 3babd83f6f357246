"""The classes for prompts on frames of a video, and for tracked objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class TrackPrompt:
    """What a person says about one object on one frame: points with labels, a box, both, or a mask alone.

    Attributes:
        frame: number of the frame.
        object: number of the object, which the person chooses.
        points: (n, 2) float32 x,y in pixels of the frame, or None.
        labels: (n,) int32 label of each point: 1 for object, 0 for background. None without points.
        box: (4,) float32 x1,y1,x2,y2 in pixels of the frame, or None.
        mask: (height, width) bool, the object's pixels in the frame, or None.
        corrects: whether the prompt corrects the mask of an object that was tracked in this frame before. The object's
            memory then counts too. Otherwise, the prompt alone decides, unless the state remembers the object in this
            frame.

    Example:
        >>> prompt = TrackPrompt(0, 1, np.array([[20, 30]], np.float32), np.array([1], np.int32))
        >>> prompt.frame, prompt.box is None
        (0, True)
    """

    frame: int
    object: int
    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    box: np.ndarray | None = None
    mask: np.ndarray | None = None
    corrects: bool = False


@dataclass(frozen=True)
class TrackedObject:
    """One object in one frame.

    Attributes:
        object: number of the object, as in its prompts.
        logits: (h, w) float32 low-resolution logits on the model's device. (h, w) is `Family.low_res_size`. The mask is
            logits > 0.
        score: probability from 0 to 1 that the object is visible in the frame.
    """

    object: int
    logits: Tensor
    score: float


@dataclass(frozen=True)
class TrackedFrame:
    """The tracked objects of one frame.

    Attributes:
        frame: number of the frame.
        size: (height, width) of the frame in pixels.
        objects: the objects prompted so far, in ascending order of their numbers; empty before the first prompt.
    """

    frame: int
    size: tuple[int, int]
    objects: list[TrackedObject]
