"""Track objects through frames: check frames and prompts, encode each frame, and update the state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..call import Call
from ..errors import BadFrame, BadInput, BadModel, kind
from ..families.family import Family
from ..families.sam2_video import Sam2Video
from ..segmentation import Embedding
from .frame_prompts import prompts_of_frame
from .state import TrackState
from .step import Place, Run, track_frame
from .values import TrackedFrame, TrackPrompt

NumberedFrame = tuple[int, np.ndarray | Embedding]


def track(
    family: Family,
    frames: Iterable[NumberedFrame],
    prompts: Iterable[TrackPrompt],
    state: TrackState,
    backward: bool | None,
    embed: Callable[[np.ndarray], Embedding],
    max_objects: int,
    run: Run,
    call: Call,
) -> Iterator[TrackedFrame]:
    """Track objects through frames. One frame is read, encoded and tracked at a time.

    Args:
        family: the model.
        frames: number and pixels (height, width, 3) uint8 RGB of each frame, or its number and its embedding. Numbers
            increase to track forward, and decrease to track backward.
        prompts: prompts on these frames. A list may grow while the frames are tracked, because the prompts on a frame
            are read when the frame is tracked.
        state: what the model remembers of earlier frames. It is updated after each frame. With a state of earlier
            frames, prompts on frames before the first frame are skipped.
        backward: direction of the first frame. None for the direction from the last frame of `state`.
        embed: encodes the pixels of a frame.
        max_objects: largest number of objects that are processed together.
        run: runs each piece of the work of a frame.
        call: context of the request, checked before each frame.

    Yields:
        The tracked objects of each frame, in the order of the frames.

    Raises:
        BadFrame: a frame or a prompt cannot be tracked; the message names the frame. The frames before were yielded,
            and `state` is the state after the last of them.
        BadInput: there are no frames or no prompts, or the state belongs to another model.
        BadModel: the model does not track.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Segmenter.embed`.
    """
    if not isinstance(family, Sam2Video):
        raise BadModel(
            f"this model of the family '{family.name}' has no memory parts, so it cannot track objects; use a "
            "checkpoint for video, such as facebook/sam2.1-hiera-tiny"
        )
    state.check(family)
    pending = PendingPrompts(prompts)
    return _track(family, frames, pending, state, backward, embed, max_objects, run, call)


def _track(
    family: Sam2Video,
    frames: Iterable[NumberedFrame],
    pending: PendingPrompts,
    state: TrackState,
    backward: bool | None,
    embed: Callable[[np.ndarray], Embedding],
    max_objects: int,
    run: Run,
    call: Call,
) -> Iterator[TrackedFrame]:
    last: int | None = None
    for number, frame in frames:
        call.check()
        is_first, is_resumed = last is None, last is None and state.frame is not None
        is_backward = _direction(number, last, state, backward)
        size = frame.size if isinstance(frame, Embedding) else _check_pixels(number, frame)
        if state.size not in (None, size):
            height, width = state.size or size
            got = f"{size[0]} x {size[1]}"
            raise BadFrame("video", f"a frame of {height} x {width}, like the frames before", got, frame=number)
        checked = prompts_of_frame(pending.take(number), size)
        if is_resumed:
            pending.skip_past(number, is_backward)
        if not is_first:
            backward = is_backward
            pending.check(number, backward)
        embedding = (frame if isinstance(frame, Embedding) else embed(frame)).to(family.device)
        max_pointers = min(family.max_pointers, state.length or family.max_pointers)
        with call.stage("prompt"):
            place = Place(number, size, is_backward, max_pointers)
            features = embedding.features[: family.prompt_maps]
            tracked = track_frame(family, features, state, checked, place, max_objects, run, call)
        last = number
        yield tracked
    if last is None:
        raise BadInput("video", "at least one frame", "no frames")
    pending.check(last, None)
    if not state.objects:
        raise BadInput("prompts", "at least one prompt on a frame of the video", "none")


def _check_pixels(number: int, pixels: np.ndarray) -> tuple[int, int]:
    """Return the (height, width) of a frame. Raise BadFrame if its pixels are malformed."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise BadFrame("video", "pixels (height, width, 3) uint8", f"{kind(pixels)} of {pixels.dtype}", frame=number)
    return pixels.shape[0], pixels.shape[1]


def _direction(number: int, last: int | None, state: TrackState, backward: bool | None) -> bool:
    """Return whether a frame is tracked backward.

    Args:
        number: number of the frame.
        last: number of the last frame of this call; None for the first frame.
        state: what is remembered of the frames of earlier calls.
        backward: direction of this call; None if it is not known yet.

    Raises:
        BadFrame: the number of the frame is not in the direction of the call.
    """
    if last is not None:
        if number == last or backward not in (None, number < last):
            order = "another number than" if backward is None else "a number below" if backward else "a number above"
            raise BadFrame("video", f"{order} {last}, the frame before", f"frame {number}", frame=number)
        return number < last
    if backward is None and state.frame is not None and number != state.frame:
        return number < state.frame
    return bool(state.backward if backward is None else backward)


class PendingPrompts:
    """The prompts that wait for their frames.

    Args:
        prompts: the prompts. A sequence may grow while frames are tracked.
    """

    def __init__(self, prompts: Iterable[TrackPrompt]) -> None:
        self._prompts = prompts if isinstance(prompts, Sequence) else list(prompts)
        self._read = 0  # number of prompts that were read from the sequence
        self._waiting: dict[int, list[TrackPrompt]] = defaultdict(list)  # by number of the frame

    def take(self, frame: int) -> list[TrackPrompt]:
        """Return the prompts on a frame."""
        for prompt in self._prompts[self._read :]:
            self._waiting[prompt.frame].append(prompt)
            self._read += 1
        return self._waiting.pop(frame, [])

    def skip_past(self, frame: int, backward: bool) -> None:
        """Drop the prompts on frames before the given frame. Earlier calls tracked these frames."""
        self._waiting = defaultdict(
            list, {number: prompts for number, prompts in self._waiting.items() if (number > frame) is not backward}
        )

    def check(self, frame: int, backward: bool | None) -> None:
        """Raise BadFrame if a prompt waits for a frame that is past, or that was left out.

        Args:
            frame: number of the last frame.
            backward: direction of the call; None if no further frame comes.
        """
        for number in sorted(self._waiting):
            if backward is None or (number > frame) is backward:
                expected = f"prompts on frames that are tracked; the last one is frame {frame}"
                raise BadFrame("prompts", expected, f"a prompt on frame {number}", frame=number)
