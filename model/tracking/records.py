"""Convert tracked frames to records: one per frame and object, with the mask as text."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from .. import masks
from ..call import UNTRACKED, Call
from ..segmenter import Segmentation, Segmenter
from .values import TrackedFrame


class TrackRecord(TypedDict):
    """One object in one frame, as in tables and responses.

    Attributes:
        frame: number of the frame, from 0 in the order of presentation.
        object: number of the object, as in its prompts.
        encoded_binary_mask: the `counts` text of COCO's compressed run lengths. With `size`, pycocotools decodes it.
        size: [height, width] of the frame in pixels.
        bbox: [x, y, width, height] of the mask in pixels; zeros for an empty mask.
        area: number of pixels of the mask; 0 if the object is not visible.
        score: probability from 0 to 1 that the object is visible.
    """

    frame: int
    object: int
    encoded_binary_mask: str
    size: list[int]
    bbox: list[float]
    area: int
    score: float


def track_records(segmenter: Segmenter, tracked: TrackedFrame, call: Call = UNTRACKED) -> list[TrackRecord]:
    """Return the records of a frame, one per object, in ascending order of the objects' numbers.

    Each object is rendered in a turn of the request. Raises the exceptions of `Call.check`.
    """
    records = []
    for thing in tracked.objects:
        segmentation = Segmentation(thing.logits[None], np.array([thing.score], np.float32), tracked.size)
        with call.stage("render"):
            encoded = masks.encode(segmenter.cropped_masks(segmentation)[0], "rle")
        records.append(
            TrackRecord(
                frame=tracked.frame,
                object=thing.object,
                encoded_binary_mask=encoded["encoded_binary_mask"],
                size=encoded["size"],
                bbox=encoded["bbox"],
                area=encoded["area"],
                score=round(thing.score, 6),
            )
        )
    return records
