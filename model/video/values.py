"""The classes of videos and their frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import NamedTuple

import numpy as np

from ..errors import BadFrame
from .limits import COLUMN


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

    def check_frame(self, number: int, pixels: np.ndarray) -> None:
        """Raise BadFrame if a frame has another size than the video."""
        if pixels.shape[:2] != self.size:
            (height, width), (got_height, got_width) = self.size, pixels.shape[:2]
            expected = f"a frame of {width} x {height} pixels, like the first"
            raise BadFrame(COLUMN, expected, f"{got_width} x {got_height} pixels", frame=number)
