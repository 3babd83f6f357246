"""Track objects in a video: a multipart form in, one line of JSON per frame and object out while frames are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import JSONResponse, Response, StreamingResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import ClientDisconnected, EndpointError
from sam_endpoint.model.tracking import TrackPrompt
from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
from sam_endpoint.model.tracking.records import track_records
from sam_endpoint.model.tracking.ways import AUTO, Tracker, tracker_for
from sam_endpoint.model.video import Video, VideoLimits, open_video
from sam_endpoint.model.videos import PIXEL_BYTES, decoded_frames
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.forms import FormRoute

LINES = "application/x-ndjson"
router = APIRouter(tags=["Tracking"], route_class=FormRoute)

PROMPTS_HELP = (
    "JSON: a list of prompts. Each has `frame`, `object`, and `points` with `labels`, or `box`, or both, or `mask`."
)
PROMPTS_EXAMPLE = '[{"frame": 0, "object": 1, "points": [[48, 32]], "labels": [1]}]'
TRACKER_HELP = "auto, memory (the model's memory of earlier frames) or box (the box of the last mask)"


@router.post("/track", summary="Track objects in a video", response_class=Response)
def track(
    request: Request,
    video: Annotated[UploadFile, File(description="The video file: mp4, mov, webm, GIF or animated WebP.")],
    prompts: Annotated[str, Form(description=PROMPTS_HELP, examples=[PROMPTS_EXAMPLE])],
    model: Annotated[str, Form(description="Name of a served model; empty for the default model.")] = "",
    tracker: Annotated[str, Form(description=TRACKER_HELP)] = AUTO,
) -> Response:
    """Return one line of JSON per frame and object, as soon as the frame is done.

    A line has `frame`, `object`, `encoded_binary_mask` (COCO run lengths), `size`, `bbox`, `area` and `score`. The last
    line has `frames`, the number of tracked frames, and `error`: null, or why the video could not be tracked further. A
    response without this line is incomplete.
    """
    context = context_of(request.scope)
    served = request.app.state.catalog.get(model or None)
    chosen = tracker_for(served.engine_for(context).segmenter, tracker)
    settings, images = request.app.state.settings, served.engine.images.limits
    limits = VideoLimits(images.max_pixels, images.max_side, settings.track_frames, settings.body_bytes)
    content = video.file.read()
    with context.call.stage("decode"):
        opened = open_video(content, limits)
    parsed = parse_track_prompts(prompts, opened.size, opened.count)
    served.limits.check_objects(len({prompt.object for prompt in parsed}))
    return StreamingResponse(
        _stream_lines(chosen, opened, parsed, context.call), media_type=LINES, headers=served.headers
    )


def _stream_lines(tracker: Tracker, video: Video, prompts: list[TrackPrompt], call: Call) -> Iterator[bytes]:
    """Yield the lines of the response. Errors end the response with a line that names them.

    Each frame has the time limit of a request. The memory of a frame is held until the response ends.
    """
    count, problem = 0, None
    try:
        with call.hold(PIXEL_BYTES * video.size[0] * video.size[1]):
            frames = decoded_frames(video, call, prompts[0].frame)  # earlier frames have no objects
            with closing(frames):
                for tracked in tracker.track(frames, prompts, tracker.new_state(), call):
                    with call.stage("render"):
                        lines = [json.dumps(record) + "\n" for record in track_records(tracker.segmenter, tracked)]
                    count += 1
                    call.restart()
                    yield "".join(lines).encode()
    except ClientDisconnected:
        raise
    except EndpointError as error:
        problem = str(error)
    yield (json.dumps({"frames": count, "error": problem}) + "\n").encode()


def error_response(problem: Problem) -> JSONResponse:
    """Return an error that occurs before the first line: `{"error": message}`."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect("tracking", ("/track",), router, error_response, {}, ("multipart/form-data",))
