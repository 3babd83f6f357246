"""Read mp4, mov, webm, mkv and avi files with PyAV, a binding of FFmpeg."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadData, BadFrame, BadInput
from .limits import COLUMN, VideoLimits
from .values import Video, VideoFrame

# FFmpeg's readers of these formats take all data from the file itself. Others, such as those of playlists, open further
# files and URLs, which a file from a stranger must not choose.
FORMATS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts")
# FFmpeg has decoders of hundreds of codecs. Users do not need most of them, and each decoder is a target for attacks.
CODECS = (
    "h264", "hevc", "vp8", "vp9", "libvpx", "libvpx-vp9", "av1", "libdav1d", "mpeg4", "mpeg1video", "mpeg2video",
    "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "png", "rawvideo", "qtrle",
)  # fmt: skip
EXPECTED = "an mp4, mov, webm, mkv, avi, GIF or WebP file"
DECODER_THREADS = 2  # the other cores are for the model
CODED_MARGIN = 64  # pixels; a codec stores sides that are multiples of up to 64
DEFAULT_RATE = 25.0  # frames per second, if the file has no times
# Seconds, and durations of a frame: a video ends early if its header announces more than the larger of the two beyond
# the last frame.
MIN_GAP, MIN_GAP_FRAMES = 0.1, 2.5


class ContainerVideo(Video):
    """A video in a container format. Rotation in the metadata is applied; the pixels need not be square.

    The frames are all frames that the file holds, each once, whatever their durations: a variable frame rate needs no
    conversion, and `VideoFrame.seconds` has the time of each frame.

    Args:
        source: path of the file, or its content.
        limits: limits on the size and number of frames.

    Raises:
        BadInput: the file is not a video in one of FORMATS, has no video stream or no frames, or exceeds the limits.
        BadData: PyAV is not installed.
    """

    def __init__(self, source: Path | bytes, limits: VideoLimits) -> None:
        self._av = _import_av()
        self._source, self._limits = source, limits
        try:
            with self._opened() as (container, stream):
                self.count, seconds, self._ends_early = self._count(container, stream)
            with self._opened() as (container, stream):
                first = next(container.decode(stream), None)
        except self._av.error.EOFError:  # a header and nothing behind it
            raise BadInput(COLUMN, "a video with at least 1 frame", "0 frames") from None
        except self._av.error.FFmpegError:
            raise BadInput(COLUMN, EXPECTED, "a file that is of another format, incomplete or broken") from None
        limits.check_count(self.count if first is not None else 0)
        self.rate = self.count / seconds if seconds > 0 else DEFAULT_RATE
        height, width = self._pixels(first).shape[:2]
        self.size = (height, width)
        self.identity = _sha256(source)

    def frames(self, start: int = 0) -> Generator[VideoFrame, None, None]:
        """Decode the frames, as `Video.frames`. Frames before `start` are decoded too, but not converted to RGB."""
        number, begin = 0, 0.0
        with self._opened() as (container, stream):
            decoder = container.decode(stream)
            while (frame := self._next(decoder, number)) is not None:
                seconds = number / self.rate if frame.time is None else frame.time
                if number == 0:
                    begin = seconds
                if number >= self._limits.max_frames:
                    raise BadFrame(COLUMN, f"at most {self._limits.max_frames} frames", "more frames", frame=number)
                if number >= start:
                    pixels = self._pixels(frame)
                    self.check_frame(number, pixels)
                    yield VideoFrame(number, pixels, seconds - begin)
                number += 1
        if self._ends_early:
            raise self._early_end(number)

    def _next(self, decoder: Iterator[Any], number: int) -> Any:
        """Decode the next frame. Return None at the end of the video."""
        try:
            frame = next(decoder, None)
        except self._av.error.FFmpegError:
            if self._ends_early:  # the last packet of the file is incomplete
                raise self._early_end(number) from None
            raise BadFrame(COLUMN, "a frame that can be decoded", "corrupt data", frame=number) from None
        if frame is not None and frame.is_corrupt:
            if self._ends_early:
                raise self._early_end(number)
            raise BadFrame(COLUMN, "a frame that can be decoded", "corrupt data", frame=number)
        return frame

    def _early_end(self, number: int) -> BadFrame:
        expected = f"a file that holds all frames that its header announces ({self._ends_early})"
        return BadFrame(COLUMN, expected, "the end of the file", frame=number)

    def _pixels(self, frame: Any) -> np.ndarray:
        """Convert a frame of PyAV to upright (height, width, 3) uint8 RGB."""
        pixels: np.ndarray = frame.to_ndarray(format="rgb24")
        turns = round(frame.rotation / 90)  # quarter turns, counterclockwise
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns % 4 else pixels

    def _count(self, container: Any, stream: Any) -> tuple[int, float, str]:
        """Count the frames of a stream without decoding them.

        Returns:
            The number of frames, their duration in seconds, and what the header announces if the file ends early,
            otherwise an empty text.
        """
        if stream.frames:
            self._limits.check_count(stream.frames)
        count, begin, end, is_corrupt = 0, math.inf, 0.0, False
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    count += 1
                    is_corrupt |= packet.is_corrupt
                    if packet.pts is not None:
                        begin = min(begin, float(packet.pts * packet.time_base))
                        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if count > self._limits.max_frames:
                        self._limits.check_count(count)
        except self._av.error.FFmpegError:
            is_corrupt = True
        if stream.frames:  # the index of the file lists all frames, without those that an edit list removes
            listed = sum(not entry.is_discard for entry in stream.index_entries)
            if count < listed or is_corrupt:
                return max(count, listed), end - begin, f"{max(count, listed)} frames"
            return count, end - begin, ""
        announced = _announced_seconds(container, stream)
        if announced - end > max(MIN_GAP, MIN_GAP_FRAMES * (end - begin) / max(1, count)) or is_corrupt:
            return count, end - begin, f"{announced:.2f} s" if announced else "no incomplete frame"
        return count, end - begin, ""

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the file. Yield PyAV's container and its first video stream, whose size is within the limits."""
        stream = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source.open("rb")
        # FFmpeg gets a Python file, and can open no other file.
        options = {
            "format_whitelist": ",".join(FORMATS),
            "codec_whitelist": ",".join(CODECS),
            "protocol_whitelist": "",
            "enable_drefs": "0",
        }
        with stream, self._av.open(stream, options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise BadInput(COLUMN, "a file with a video stream", "a file without one")
            video = container.streams.video[0]
            context = video.codec_context
            if context is None or context.name not in CODECS:
                raise BadInput(COLUMN, f"a video in one of the codecs {', '.join(CODECS)}", "another codec")
            self._limits.check_size(context.width, context.height)
            # A frame inside the stream can state another size than the header.
            pixels = self._limits.max_pixels + CODED_MARGIN * (context.width + context.height + CODED_MARGIN)
            context.options = {"max_pixels": str(pixels)}
            context.thread_type, context.thread_count = "AUTO", DECODER_THREADS
            yield container, video


def _announced_seconds(container: Any, stream: Any) -> float:
    """Return the end of a stream in seconds according to the header; 0 if the header does not say it.

    The duration of the file counts only if it has no other streams, which may be longer.
    """
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except (KeyError, ValueError):
        return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _sha256(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise BadData(
            "mp4, mov, webm, mkv and avi files need the package av: pip install av (the extra is "
            "'segment-anything-endpoint[video]'); GIF and WebP animations and folders of images do not"
        ) from None
    return av
