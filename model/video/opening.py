"""Open a video: recognise its form and check its header."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInput
from .animation import AnimatedImage, is_animation
from .container import ContainerVideo
from .folder import FrameFiles
from .limits import COLUMN, VideoLimits
from .values import Video

HEAD = 32  # bytes; enough to recognise GIF and WebP


def open_video(
    source: str | os.PathLike[str] | bytes | Sequence[Path | bytes], limits: VideoLimits | None = None
) -> Video:
    """Open a video and read its header.

    Args:
        source: path of a video file or of a folder of images; the content of a video file; or the image files of the
            frames, or their contents, in order.
        limits: limits on the video, by default those of VideoLimits. They are checked before a frame is decoded.

    Returns:
        The video. Rotation in its metadata is applied, so frames are upright.

    Raises:
        BadInput: the source is not a video, has no frames, or exceeds the limits.
        BadData: the package `av` is needed to read the file and is not installed.

    Example:
        >>> from PIL import Image
        >>> frames = [Image.new("RGB", (3, 2), (step, 0, 0)) for step in (0, 200)]
        >>> import io
        >>> buffer = io.BytesIO()
        >>> frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
        >>> video = open_video(buffer.getvalue())
        >>> video.size, video.count, [frame.number for frame in video.frames()]
        ((2, 3), 2, [0, 1])
    """
    limits = limits or VideoLimits()
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        return FrameFiles(source, limits)
    if isinstance(source, bytes):
        limits.check_bytes(len(source))
        return AnimatedImage(source, limits) if is_animation(source[:HEAD]) else ContainerVideo(source, limits)
    path = Path(source)
    if path.is_dir():
        return FrameFiles.in_folder(path, limits)
    try:
        limits.check_bytes(path.stat().st_size)
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except BadInput:
        raise
    except (OSError, ValueError) as error:  # ValueError for a path with a null byte
        reason = getattr(error, "strerror", "") or type(error).__name__
        raise BadInput(COLUMN, "a video file, or a folder of images", f"a path that cannot be read: {reason}") from None
    return AnimatedImage(path.read_bytes(), limits) if is_animation(head) else ContainerVideo(path, limits)
