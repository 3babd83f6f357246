"""Track the objects of clips from one click, and compare the masks with the true masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sam_endpoint.evaluation.clips.clip import Clip
from sam_endpoint.evaluation.davis import ObjectQuality, measure_object
from sam_endpoint.evaluation.geometry import Mask, center
from sam_endpoint.model.call import UNTRACKED
from sam_endpoint.model.segmenter import Embedding, Segmentation, Segmenter
from sam_endpoint.model.tracking import TrackedFrame, TrackPrompt
from sam_endpoint.model.tracking.ways import BOX, MEMORY, tracker_for

FIRST_MASK = "first mask"
METHODS = {MEMORY: "memory", BOX: "box of the last mask", FIRST_MASK: "first mask repeated"}


@dataclass
class ClipResult:
    """The results of one clip.

    Attributes:
        name: name of the clip.
        clip: the clip, if it is to be drawn.
        masks: by method and number of the object, the `(T, H, W)` bool masks, if they are to be drawn.
        qualities: by method and number of the object, the quality of the masks.
        hidden: by number of the object, whether it is hidden in each frame, `(T,)`.
    """

    name: str
    clip: Clip | None
    masks: dict[str, dict[int, NDArray[np.bool_]]] = field(default_factory=dict)
    qualities: dict[str, dict[int, ObjectQuality]] = field(default_factory=dict)
    empty: dict[str, dict[int, NDArray[np.bool_]]] = field(default_factory=dict)
    hidden: dict[int, NDArray[np.bool_]] = field(default_factory=dict)


def methods_of(segmenter: Segmenter) -> list[str]:
    """Return the methods to compare: the memory if the model has one, and the two without memory."""
    auto = tracker_for(segmenter).way
    return [*dict.fromkeys([auto, BOX, FIRST_MASK])]


def click_prompts(clip: Clip) -> list[TrackPrompt]:
    """Return a click at the centre of each object in the first frame."""
    return [
        TrackPrompt(0, number, np.array([center(clip.mask(0, number))], np.float32), np.ones(1, np.int32))
        for number in clip.objects()
    ]


def track_clip(segmenter: Segmenter, clip: Clip, methods: list[str]) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Track all objects of a clip from one click each. Each frame is encoded once, for all methods.

    Args:
        segmenter: the model.
        clip: the clip.
        methods: some of METHODS.

    Returns:
        By method and number of the object, the `(T, H, W)` bool masks.
    """
    prompts = click_prompts(clip)
    embeddings = [segmenter.embed([frame])[0] for frame in clip.frames]
    masks: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for way in methods:
        if way != FIRST_MASK:
            masks[way] = _track(segmenter, embeddings, prompts, way)
    if FIRST_MASK in methods:
        first = masks.get(methods[0]) or _track(segmenter, embeddings[:1], prompts, BOX)
        masks[FIRST_MASK] = {
            number: np.broadcast_to(tracked[0], (len(embeddings), *tracked[0].shape))
            for number, tracked in first.items()
        }
    return masks


def _track(
    segmenter: Segmenter, embeddings: list[Embedding], prompts: list[TrackPrompt], way: str
) -> dict[int, NDArray[np.bool_]]:
    tracker = tracker_for(segmenter, way)
    masks: dict[int, list[Mask]] = {prompt.object: [] for prompt in prompts}
    for tracked in tracker.track(enumerate(embeddings), prompts, tracker.new_state(), UNTRACKED):
        for number, mask in _masks(segmenter, tracked):
            masks[number].append(mask)
    return {number: np.stack(own) for number, own in masks.items()}


def _masks(segmenter: Segmenter, tracked: TrackedFrame) -> Iterator[tuple[int, Mask]]:
    for thing in tracked.objects:
        yield thing.object, segmenter.masks(Segmentation(thing.logits[None], np.ones(1, np.float32), tracked.size))[0]


def measure_clip(
    name: str, clip: Clip, masks: dict[str, dict[int, NDArray[np.bool_]]], keep: bool = False
) -> ClipResult:
    """Compare tracked masks with the true masks.

    Args:
        name: name of the clip.
        clip: the clip.
        masks: the result of `track_clip`.
        keep: whether the result keeps the frames and masks, for drawings.
    """
    result = ClipResult(name, clip if keep else None, masks if keep else {})
    result.hidden = {number: clip.hidden(number) for number in clip.objects()}
    for method, by_object in masks.items():
        result.qualities[method] = {
            number: measure_object([clip.mask(frame, number) for frame in range(len(clip.frames))], list(own))
            for number, own in by_object.items()
        }
        result.empty[method] = {number: np.array([not mask.any() for mask in own]) for number, own in by_object.items()}
    return result


def object_table(results: list[ClipResult]) -> pd.DataFrame:
    """Return one row per method, clip and object, with the statistics of DAVIS and two about occlusions.

    `hidden found` is the share of the frames with the object hidden in which the predicted mask is empty. `J after` is
    the mean J of the frames after the last occlusion. Both are NaN for objects that are never hidden.
    """
    rows = []
    for result in results:
        for method, qualities in result.qualities.items():
            for number, quality in qualities.items():
                hidden = result.hidden[number]
                last = int(np.flatnonzero(hidden)[-1]) if hidden.any() else len(hidden)
                found = result.empty[method][number][hidden]
                after = quality.region[last + 1 :]
                rows.append(
                    {"method": METHODS[method], "clip": result.name, "object": number}
                    | quality.summary()
                    | {
                        "hidden found": float(found.mean()) if len(found) else np.nan,
                        "J after": float(after.mean()) if len(after) else np.nan,
                    }
                )
    return pd.DataFrame(rows)
