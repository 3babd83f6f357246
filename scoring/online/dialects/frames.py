"""Open the frames that clients send as a list of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import Request

from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadFrame, BadInput
from sam_endpoint.model.images import ImageReader
from sam_endpoint.model.video import Video, VideoLimits, open_video
from sam_endpoint.scoring.online.context import context_of


def open_frames(request: Request, engine: Engine, field: str, frames: Sequence[str]) -> tuple[Video, int]:
    """Open a video whose frames are images.

    Args:
        request: the request.
        engine: engine of the model, with the limits on images.
        field: name of the field, for error messages.
        frames: base64 text or data URI of each frame.

    Returns:
        The video, and the size of all images in bytes.

    Raises:
        BadFrame: a frame is not an image, or has another size than the first.
        BadInput: there are no frames, or too many.
    """
    call, settings, images = context_of(request.scope).call, request.app.state.settings, engine.images.limits
    limits = VideoLimits(images.max_pixels, images.max_side, settings.track_frames, settings.body_bytes)
    reader = ImageReader(images)
    try:
        limits.check_count(len(frames))
        content, urls = [], {}
        with call.stage("parse"):
            for number, text in enumerate(frames):
                with _naming(field, number):
                    reference = reader.reference(text)
                    if reference.kind == "url":
                        urls[number] = reference
                    content.append(b"" if reference.kind == "url" else reader.read(reference, call))
        for number, reference in urls.items():
            with _naming(field, number), call.stage("fetch"):
                content[number] = reader.read(reference, call)
        with call.stage("decode"):
            video = open_video(content, limits)
    except BadInput as error:
        raise error.renamed({"video": field}) from None
    return video, sum(map(len, content))


@contextmanager
def _naming(field: str, frame: int) -> Iterator[None]:
    """Let errors of an image name the field and the frame."""
    try:
        yield
    except BadInput as error:
        raise BadFrame(field, error.expected, error.got, frame=frame) from None
