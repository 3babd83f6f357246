"""Choose how a model tracks: with its memory, or by the box of the last mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..call import Call
from ..errors import BadParameter
from ..segmenter import Embedding, Segmenter
from .by_box import BoxState, track_by_box
from .state import TrackState
from .values import TrackedFrame, TrackPrompt

AUTO, MEMORY, BOX = WAYS = ("auto", "memory", "box")
Frames = Iterable[tuple[int, np.ndarray | Embedding]]


class State(Protocol):
    """What a tracker remembers of earlier frames."""

    def save(self, path: Path) -> None:
        """Write the state to a file."""


@dataclass(frozen=True)
class Tracker:
    """A model and the way in which it tracks.

    Attributes:
        way: MEMORY or BOX.
        segmenter: the model.
        new_state: returns the state before the first frame.
        load_state: reads a saved state; raises BadData if it cannot.
        track: tracks frames by prompts from a state, which it updates after each frame.
    """

    way: str
    segmenter: Segmenter
    new_state: Callable[[], Any]
    load_state: Callable[[Path], Any]
    track: Callable[[Frames, Iterable[TrackPrompt], Any, Call], Iterator[TrackedFrame]]


def tracker_for(segmenter: Segmenter, way: str = AUTO) -> Tracker:
    """Return the tracker of a model.

    Args:
        segmenter: the model.
        way: MEMORY for the model's memory of earlier frames, BOX for the box of the last mask, or AUTO for the memory
            if the model has one, otherwise the box.

    Raises:
        BadParameter: the way is unknown, or the model has no memory.
    """
    has_memory = segmenter.family.tracks
    if way not in WAYS:
        raise BadParameter(f"tracker: expected one of {', '.join(WAYS)}")
    if way == MEMORY and not has_memory:
        raise BadParameter(
            f"tracker: the model '{segmenter.name}' has no memory of earlier frames; choose '{BOX}', or a checkpoint "
            "for video such as facebook/sam2.1-hiera-tiny"
        )
    if way == BOX or not has_memory:
        return Tracker(BOX, segmenter, BoxState, BoxState.load, partial(track_by_box, segmenter))
    load = partial(TrackState.load, device=segmenter.family.device)
    return Tracker(
        MEMORY,
        segmenter,
        TrackState,
        load,
        lambda frames, prompts, state, call: segmenter.track(frames, prompts, state, call=call),
    )
