"""Track objects through frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..call import UNTRACKED, Call
from ..segmenter import Embedding, Segmenter
from .state import TrackState
from .values import TrackedFrame, TrackPrompt


def track(
    segmenter: Segmenter,
    frames: Iterable[tuple[int, np.ndarray | Embedding]],
    prompts: Iterable[TrackPrompt],
    state: TrackState | None = None,
    call: Call = UNTRACKED,
) -> Iterator[TrackedFrame]:
    """Track objects through frames. One frame is read, encoded and tracked at a time.

    Args:
        segmenter: the model; `segmenter.family.tracks` must be true.
        frames: number and pixels (height, width, 3) uint8 RGB of each frame, or its embedding. Numbers increase to
            track forward, and decrease to track backward.
        prompts: prompts on these frames. A list may grow while the frames are tracked: the prompts of a frame are read
            when the frame is tracked.
        state: what is remembered of earlier frames; it is updated after each frame. None begins anew.
        call: context of the request, checked before each frame.

    Yields:
        The tracked objects of each frame, in the order of the frames.

    Raises:
        BadFrame: a frame or a prompt cannot be tracked; the message names the frame. Frames before it were yielded,
            and `state` is the state after the last of them.
        BadModel: the model does not track.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Segmenter.embed`.
    """
    raise NotImplementedError
