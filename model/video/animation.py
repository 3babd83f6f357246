"""Read GIF and WebP animations with Pillow."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image

from ..errors import BadFrame, BadInput
from .limits import COLUMN, VideoLimits
from .values import Video, VideoFrame

FORMATS = ("GIF", "WEBP")
DEFAULT_SECONDS = 0.1  # duration of a frame without a duration of its own, as browsers have it


def is_animation(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a GIF or a WebP file.

    Example:
        >>> is_animation(b"GIF89a..."), is_animation(b"RIFF....WEBPVP8X"), is_animation(b"RIFF....AVI LIST")
        (True, True, False)
    """
    return head[:6] in (b"GIF87a", b"GIF89a") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


class AnimatedImage(Video):
    """A GIF or WebP animation.

    Args:
        data: the encoded file.
        limits: limits on the size and number of frames.

    Raises:
        BadInput: the file is broken or exceeds the limits.
    """

    def __init__(self, data: bytes, limits: VideoLimits) -> None:
        self._data = data
        try:
            with self._opened() as image:
                width, height = image.size
                limits.check_size(width, height)
                self.count = _count(image)
        except BadInput:
            raise
        except Exception:  # Pillow's decoders raise many types of exceptions for broken files
            raise BadInput(COLUMN, "a GIF or WebP animation", f"a broken file ({len(data)} bytes)") from None
        limits.check_count(self.count)
        self.size = (height, width)
        self.identity = hashlib.sha256(data).hexdigest()
        self.rate = 1 / self._first_duration()

    def frames(self, start: int = 0) -> Generator[VideoFrame, None, None]:
        """Decode the frames, as `Video.frames`. A frame's own duration gives the time of the next frame."""
        seconds = 0.0
        with self._opened() as image:
            for number in range(self.count):
                try:
                    image.seek(number)
                    image.load()  # a GIF frame holds changes only, so earlier frames are decoded too
                    duration = _seconds(image)
                    if number >= start:
                        pixels = np.asarray(image.convert("RGB"))
                except Exception:  # as above
                    raise BadFrame(COLUMN, "a frame that can be decoded", "a broken frame", frame=number) from None
                if number >= start:
                    self.check_frame(number, pixels)
                    yield VideoFrame(number, pixels, seconds)
                seconds += duration

    def _first_duration(self) -> float:
        try:
            with self._opened() as image:
                image.load()
                return _seconds(image)
        except Exception:  # `frames` reports it
            return DEFAULT_SECONDS

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, for which the limits decide
            image = Image.open(io.BytesIO(self._data), formats=FORMATS)
        with image:
            yield image


def _count(image: Image.Image) -> int:
    """Count the frames. If the file breaks off, a frame behind it counts too, so that `frames` reports it."""
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # as above
        number = 0
        with suppress(Exception):
            while True:
                image.seek(number + 1)
                number += 1
        return number + 2


def _seconds(image: Image.Image) -> float:
    """Return the duration of the current frame in seconds. Browsers show a frame of 10 ms or less for 100 ms."""
    milliseconds = image.info.get("duration") or 0
    return milliseconds / 1000 if milliseconds > 10 else DEFAULT_SECONDS
