"""Read image files as the frames of a video."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np

from ..errors import BadFrame, BadInput
from ..images import ImageLimits
from ..images.decoding import decode
from .limits import COLUMN, VideoLimits
from .values import Video, VideoFrame

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".gif")
RATE = 25.0  # frames per second; a folder does not state it


def frame_order(name: str) -> list[int | str]:
    """Return a sort key for file names in which numbers are compared as numbers.

    Example:
        >>> sorted(["frame10.png", "frame9.png", "frame1.png"], key=frame_order)
        ['frame1.png', 'frame9.png', 'frame10.png']
    """
    return [int(part) if part.isascii() and part.isdigit() else part.lower() for part in re.split(r"([0-9]+)", name)]


class FrameFiles(Video):
    """Image files as the frames of a video. The EXIF orientation of each image is applied.

    Args:
        files: the files, or their contents, in order.
        limits: limits on the video. The size of an image is checked before its pixels are decoded.

    Raises:
        BadInput: there are no files, the first file is not an image, or the video exceeds the limits.
    """

    def __init__(self, files: Sequence[Path | bytes], limits: VideoLimits) -> None:
        self._files = list(files)
        self._limits = ImageLimits(limits.max_pixels, limits.max_side, limits.max_bytes)
        self.count, self.rate = len(self._files), RATE
        limits.check_count(self.count)
        try:
            described = [_describe(file) for file in self._files]
        except OSError as error:
            raise BadInput(COLUMN, "image files that can be read", error.strerror or "an unreadable file") from None
        limits.check_bytes(sum(nbytes for nbytes, _ in described))
        self.identity = hashlib.sha256("\n".join(text for _, text in described).encode()).hexdigest()
        height, width = self._decode(0).shape[:2]
        self.size = (height, width)

    @classmethod
    def in_folder(cls, folder: Path, limits: VideoLimits) -> FrameFiles:
        """Open the images of a folder in the order of the numbers in their names. Subfolders are not read."""
        files = [file for file in folder.iterdir() if file.suffix.lower() in ENDINGS and file.is_file()]
        if not files:
            raise BadInput(COLUMN, f"a folder of image files ({', '.join(ENDINGS)})", "a folder without images")
        files.sort(key=lambda file: frame_order(file.name))
        return cls(files, limits)

    def frames(self, start: int = 0) -> Generator[VideoFrame, None, None]:
        """Decode the images from number `start`, as `Video.frames`."""
        for number in range(start, self.count):
            pixels = self._decode(number)
            self.check_frame(number, pixels)
            yield VideoFrame(number, pixels, number / RATE)

    def _decode(self, number: int) -> np.ndarray:
        file = self._files[number]
        try:
            return decode(file if isinstance(file, bytes) else file.read_bytes(), self._limits, upright=True)
        except (BadInput, OSError) as error:
            raise _bad_frame(number, error) from None


def _describe(file: Path | bytes) -> tuple[int, str]:
    """Return the size of a file in bytes, and a text that differs between files.

    Names, sizes and times stand for the content of files, because reading all files takes too long for large folders.
    """
    if isinstance(file, bytes):
        return len(file), hashlib.sha256(file).hexdigest()
    stat = file.stat()
    return stat.st_size, f"{file.name}/{stat.st_size}/{stat.st_mtime_ns}"


def _bad_frame(number: int, error: BadInput | OSError) -> BadFrame:
    if isinstance(error, BadInput):
        return BadFrame(COLUMN, error.expected, error.got, frame=number)
    return BadFrame(COLUMN, "an image file that can be read", error.strerror or "an unreadable file", frame=number)
