"""Write frames to a video file with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np

from sam_endpoint.model.errors import BadParameter

# VP9 plays in browsers and in VLC. Its encoder, libvpx, has a BSD licence; FFmpeg's common encoders of H.264 and H.265
# have the GPL.
CODEC = "libvpx-vp9"
SPEED = {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "crf": "28", "b:v": "0"}
ENDINGS = (".mp4", ".webm")
CLOCK = 90_000  # ticks per second


class VideoWriter:
    """Writes frames to an .mp4 or .webm file. Use it as a context manager.

    The file appears under its name when it is complete.

    Args:
        file: the file, which is replaced.
        size: (height, width) of the frames in pixels. An odd row or column at the end is cut off.
    """

    def __init__(self, file: Path, size: tuple[int, int]) -> None:
        import av

        if file.suffix.lower() not in ENDINGS:
            raise BadParameter(f"expected a file name that ends in {' or '.join(ENDINGS)}, got '{file.name}'")
        self._file = file
        self._unfinished = file.with_name(f".{file.stem}.unfinished{file.suffix}")
        self._height, self._width = (max(2, side - side % 2) for side in size)
        self._frame_class = av.VideoFrame
        self._container = av.open(str(self._unfinished), "w")
        self._stream = cast(Any, self._container.add_stream(CODEC, rate=CLOCK, options=SPEED))
        self._stream.width, self._stream.height, self._stream.pix_fmt = self._width, self._height, "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, CLOCK)
        self._last = -1

    def write(self, pixels: np.ndarray, seconds: float) -> None:
        """Add a frame.

        Args:
            pixels: (height, width, 3) uint8 RGB.
            seconds: time at which the frame is shown. Times increase from frame to frame.
        """
        cropped = np.ascontiguousarray(pixels[: self._height, : self._width])
        frame = self._frame_class.from_ndarray(cropped, format="rgb24")
        self._last = max(self._last + 1, round(seconds * CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None:
            self._unfinished.replace(self._file)
        else:
            self._unfinished.unlink(missing_ok=True)
