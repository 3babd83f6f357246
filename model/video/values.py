"""The classes of videos and their frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

import numpy as np

from ..errors import BadFrame
from .limits import COLUMN

BACKWARD_BYTES = 64 * 2**20  # of decoded frames that wait for their turn when a video is read backward


class VideoFrame(NamedTuple):
    """One frame of a video.

    Attributes:
        number: number of the frame in the order of presentation, from 0.
        pixels: (height, width, 3) uint8 RGB, upright.
        seconds: time from the start of the video at which the frame is shown, in seconds.
    """

    number: int
    pixels: np.ndarray
    seconds: float


class Video(ABC):
    """A video whose header has been read and checked. Its frames are decoded one by one.

    Attributes:
        size: (height, width) of the upright frames in pixels.
        count: number of frames that the file announces. It can exceed the number that can be decoded.
        rate: mean number of frames per second.
        identity: value that differs between videos with different content; JSON.
    """

    size: tuple[int, int]
    count: int
    rate: float
    identity: str

    @abstractmethod
    def frames(self, start: int = 0) -> Generator[VideoFrame, None, None]:
        """Decode the frames in the order of presentation, each once.

        Args:
            start: number of the first frame that is yielded.

        Yields:
            The frames.

        Raises:
            BadFrame: a frame cannot be decoded, or has another size than the first frame. The error has the number of
                the frame; all frames before it were yielded.
        """

    def backward(self, start: int) -> Generator[VideoFrame, None, None]:
        """Decode the frames from number `start` to the first, in descending order.

        Videos can be decoded forward only. So the frames are decoded in groups of about BACKWARD_BYTES of pixels, and
        for each group the frames before it are decoded too.

        Args:
            start: number of the first frame that is yielded.

        Yields:
            The frames.

        Raises:
            BadFrame: as `frames`. The frames after the bad frame were yielded, if they can be decoded without it.
        """
        height, width = self.size
        group = max(1, BACKWARD_BYTES // (3 * height * width))
        while start >= 0:
            frames, error = self._group(max(0, start - group + 1), start)
            yield from reversed(frames)
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # it refers to this frame, which holds the pixels of the frames
            start -= group

    def _group(self, first: int, last: int) -> tuple[list[VideoFrame], BadFrame | None]:
        """Decode the frames `first` to `last`. Of bad frames, return the last one's error and the frames after it."""
        error: BadFrame | None = None
        while first <= last:
            decoded: list[VideoFrame] = []
            try:
                with closing(self.frames(first)) as frames:
                    for frame in frames:
                        decoded.append(frame)
                        if frame.number >= last:
                            return decoded, error
            except BadFrame as problem:
                if error is not None and problem.frame <= error.frame:
                    break  # the frames after the bad one cannot be decoded without it
                error, first = problem.with_traceback(None), max(first, problem.frame + 1)
            else:
                expected = f"a video with at least {last + 1} frames"
                raise BadFrame(COLUMN, expected, "the end of the video", frame=first + len(decoded))
        return [], error

    def check_frame(self, number: int, pixels: np.ndarray) -> None:
        """Raise BadFrame if a frame has another size than the video."""
        if pixels.shape[:2] != self.size:
            (height, width), (got_height, got_width) = self.size, pixels.shape[:2]
            expected = f"a frame of {width} x {height} pixels, like the first"
            raise BadFrame(COLUMN, expected, f"{got_width} x {got_height} pixels", frame=number)
