"""Decode a video: a multipart form in, one line of JSON per frame out, with the frame as a JPEG file.

The page for videos shows these frames, so its frame numbers are those of `/track`, for every format and frame rate.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from PIL import Image
from starlette.responses import JSONResponse, Response, StreamingResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import ClientDisconnected, EndpointError
from sam_endpoint.model.tracking.session import PIXEL_BYTES
from sam_endpoint.model.video import Video, VideoFrame, VideoLimits, open_video
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.forms import FormRoute

LINES = "application/x-ndjson"
SIDE, MAX_SIDE = 1280, 4096  # default and maximum of the longer side of a JPEG in pixels
QUALITY = 88  # of the JPEG files
router = APIRouter(tags=["Tracking"], route_class=FormRoute)


@router.post("/frames", summary="Decode a video into images", response_class=Response)
def frames(
    request: Request,
    video: Annotated[UploadFile, File(description="The video file: mp4, mov, webm, GIF or animated WebP.")],
    side: Annotated[int, Form(ge=16, le=MAX_SIDE, description="Maximum width and height of the images.")] = SIDE,
) -> Response:
    """Return one line of JSON per frame, as soon as the frame is decoded. The frames have the numbers of `/track`.

    A line has `frame`, `seconds` (the time at which the frame is shown), `count` (the number of frames that the file
    announces), `size` ([height, width] of the upright frame) and `jpeg` (the frame as a base64 JPEG file, reduced to
    `side`). The last line has `frames`, the number of frames, and `error`: null, or why the next frame cannot be
    decoded. A response without this line is incomplete.
    """
    context = context_of(request.scope)
    settings, images = request.app.state.settings, request.app.state.catalog.get().engine.images.limits
    limits = VideoLimits(images.max_pixels, images.max_side, settings.track_frames, settings.body_bytes)
    content = video.file.read()
    with context.call.stage("decode"):
        opened = open_video(content, limits)
    return StreamingResponse(_stream_lines(opened, side, context.call), media_type=LINES)


def _stream_lines(video: Video, side: int, call: Call) -> Iterator[bytes]:
    """Yield the lines of the response. Each frame has the time limit of a request."""
    count, problem = 0, None
    try:
        with call.hold(PIXEL_BYTES * video.size[0] * video.size[1]), closing(video.frames()) as decoded:
            while True:
                with call.stage("decode"):
                    frame = next(decoded, None)
                if frame is None:
                    break
                with call.stage("render"):
                    line = json.dumps(_describe(frame, video.count, side))
                count += 1
                call.restart()
                yield f"{line}\n".encode()
    except ClientDisconnected:
        raise
    except EndpointError as error:
        problem = str(error)
    yield (json.dumps({"frames": count, "error": problem}) + "\n").encode()


def _describe(frame: VideoFrame, count: int, side: int) -> dict[str, object]:
    image = Image.fromarray(frame.pixels)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return {
        "frame": frame.number,
        "seconds": round(frame.seconds, 6),
        "count": count,
        "size": list(frame.pixels.shape[:2]),
        "jpeg": base64.b64encode(buffer.getvalue()).decode(),
    }


def error_response(problem: Problem) -> JSONResponse:
    """Return an error that occurs before the first line: `{"error": message}`."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect("frames", ("/frames",), router, error_response, {}, ("multipart/form-data",))
