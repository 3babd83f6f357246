"""Limits on the size of videos."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput

COLUMN = "video"  # named in error messages


@dataclass(frozen=True)
class VideoLimits:
    """Limits on the size of a video. They are checked before a frame is decoded.

    Attributes:
        max_pixels: maximum of width times height of a frame.
        max_side: maximum width or height in pixels.
        max_frames: maximum number of frames.
        max_bytes: maximum size of the encoded file, or of all images of a folder.
    """

    max_pixels: int = 36_000_000
    max_side: int = 16_384
    max_frames: int = 200_000
    max_bytes: int = 8 * 2**30

    def check_bytes(self, nbytes: int) -> None:
        """Raise BadInput if the encoded video is too large."""
        if nbytes > self.max_bytes:
            raise BadInput(COLUMN, f"a video of at most {self.max_bytes} bytes", f"{nbytes} bytes")

    def check_size(self, width: int, height: int) -> None:
        """Raise BadInput if the frames have no size or are too large."""
        if width < 1 or height < 1:
            raise BadInput(COLUMN, "a video that states the size of its frames", f"{width} x {height} pixels")
        if max(width, height) > self.max_side or width * height > self.max_pixels:
            expected = f"frames of at most {self.max_pixels} pixels and {self.max_side} pixels a side"
            raise BadInput(COLUMN, expected, f"{width} x {height} = {width * height} pixels")

    def check_count(self, count: int) -> None:
        """Raise BadInput if the video has no frames or too many."""
        if count < 1:
            raise BadInput(COLUMN, "a video with at least 1 frame", "0 frames")
        if count > self.max_frames:
            raise BadInput(COLUMN, f"a video of at most {self.max_frames} frames", f"{count} frames")
