"""What a session has tracked in one direction of time, and how it goes back after new prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import BadInput
from .values import TrackPrompt
from .ways import Tracker

REWIND_FRAMES, REWIND_BYTES = 64, 64 * 2**20  # states of the last frames that a session keeps, to go back to them
Prompts = Mapping[tuple[int, int], TrackPrompt]  # by number of the frame and number of the object


class TrackingPass:
    """What was tracked in one direction of time.

    Args:
        tracker: the way to track.
        step: 1 for forward, -1 for backward.
        rewinds: whether the states after the last frames are kept.

    Attributes:
        state: the state of the tracker after the last tracked frame.
        seconds: time of the last frame.
        done: whether the last frame of the video was tracked.
    """

    def __init__(self, tracker: Tracker, step: int, rewinds: bool) -> None:
        self._tracker, self.step, self._rewinds = tracker, step, rewinds
        self._prompts: Prompts = {}  # of which the answers so far are
        self._corrections: set[tuple[int, int]] = set()  # prompts that came after the object was tracked in their frame
        self._begin()

    def _begin(self) -> None:
        self.state: Any = self._tracker.new_state()
        self.seconds, self.done = 0.0, False
        self._last: int | None = None  # the last tracked frame
        self._past: deque[tuple[int, Any, int]] = deque()  # frame, state after it, and bytes that only this state holds

    @property
    def is_new(self) -> bool:
        """Whether no frame was tracked yet."""
        return self._last is None

    @property
    def nbytes(self) -> int:
        """Size of all kept states in bytes."""
        return int(self.state.nbytes) + sum(nbytes for _, _, nbytes in self._past)

    def remember(self, frame: int) -> None:
        """Note that a frame was tracked, and keep the state after it."""
        self._last = frame
        if self._rewinds:
            self._past.append((frame, self.state.copy(), self.state.nbytes_of(frame)))
            while len(self._past) > REWIND_FRAMES or sum(nbytes for _, _, nbytes in self._past) > REWIND_BYTES:
                self._past.popleft()

    def rewind(self, prompts: Prompts, start: int | None) -> int | None:
        """Go back to the first frame whose answer can change.

        Args:
            prompts: all prompts of the pass.
            start: a frame that is to be tracked again; None for no such frame.

        The pass goes back to the state before this frame. So if the next run ends before the frame is tracked, a later
        run begins with it too.

        Returns:
            The next frame to track; None if no frame is left. `state` is the state to track it with.

        Raises:
            BadInput: there are no prompts.
        """
        if not prompts:
            raise BadInput("prompts", "at least one prompt on a frame of the video", "none")
        frames = [frame for frame, _ in prompts]
        begin = min(frames, key=lambda frame: self.step * frame)
        changed = [
            place[0] for place in {*prompts, *self._prompts} if prompts.get(place) is not self._prompts.get(place)
        ]
        if start is not None:
            changed.append(start)
        self._corrections = {place for place in prompts if self._is_correction(place)}
        self._prompts = prompts
        if self._last is None:
            return begin
        past = [frame for frame in changed if self.step * frame <= self.step * self._last]
        if not past:
            return None if self.done else self._last + self.step
        target = min(self.step * frame for frame in past)
        while self._past and self.step * self._past[-1][0] >= target:
            self._past.pop()
        if not self._past:
            self._begin()
            return begin
        self._last, state, _ = self._past[-1]
        self.state, self.done = state.copy(), False
        return self._last + self.step

    def _is_correction(self, place: tuple[int, int]) -> bool:
        """Return whether a prompt came after its object was tracked in the prompt's frame."""
        if place in self._prompts or self._last is None:
            return place in self._corrections
        frame, number = place
        prompted = (prompt.frame for prompt in self._prompts.values() if prompt.object == number)
        is_past = self.step * frame <= self.step * self._last
        return is_past and any(self.step * earlier < self.step * frame for earlier in prompted)

    def marked_prompts(self) -> list[TrackPrompt]:
        """Return the prompts of the last `rewind`. Those that came as corrections are marked, also in later runs."""
        return [
            replace(prompt, corrects=True) if place in self._corrections else prompt
            for place, prompt in self._prompts.items()
        ]
