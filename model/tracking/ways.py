"""Choose how a model tracks: with its memory, or by the box of the last mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
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
FLOAT_BYTES = 4
Frames = Iterable[tuple[int, np.ndarray | Embedding]]


class State(Protocol):
    """What a tracker remembers of earlier frames."""

    @property
    def nbytes(self) -> int:
        """Size of the state in bytes."""

    def nbytes_of(self, frame: int) -> int:
        """Return the number of bytes that the state keeps of one frame."""

    def to_bytes(self) -> bytes:
        """Return the content of the file that `save` writes."""

    def copy(self) -> State:
        """Return a copy, which further tracking with this state does not change."""

    def save(self, path: Path) -> None:
        """Write the state to a file."""


@dataclass(frozen=True)
class Tracker:
    """A model and the way in which it tracks.

    Attributes:
        way: MEMORY or BOX.
        segmenter: the model.
        features_nbytes: size in bytes of the feature maps of one frame.
        new_state: returns the state before the first frame.
        load_state: reads a saved state; raises BadData if it cannot.
        parse_state: reads the result of `to_bytes`; raises BadData if it cannot.
        track: tracks frames by prompts from a state, which it updates after each frame.
    """

    way: str
    segmenter: Segmenter
    features_nbytes: int
    new_state: Callable[[], Any]
    load_state: Callable[[Path], Any]
    parse_state: Callable[[bytes], Any]
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
    nbytes = FLOAT_BYTES * sum(prod(shape) for shape in segmenter.family.feature_shapes)
    if way not in WAYS:
        raise BadParameter(f"tracker: expected one of {', '.join(WAYS)}")
    if way == MEMORY and not has_memory:
        raise BadParameter(
            f"tracker: the model '{segmenter.name}' has no memory of earlier frames; choose '{BOX}', or a checkpoint "
            "for video such as facebook/sam2.1-hiera-tiny"
        )
    if way == BOX or not has_memory:
        return Tracker(
            BOX, segmenter, nbytes, BoxState, BoxState.load, BoxState.from_bytes, partial(track_by_box, segmenter)
        )
    load = partial(TrackState.load, device=segmenter.family.device)
    return Tracker(
        MEMORY,
        segmenter,
        nbytes,
        TrackState,
        load,
        partial(TrackState.from_bytes, device=segmenter.family.device),
        lambda frames, prompts, state, call: segmenter.track(frames, prompts, state, call=call),
    )
