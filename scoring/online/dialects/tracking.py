"""Track objects in a video: a multipart form in, one line of JSON per frame and object out while frames are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import JSONResponse, Response, StreamingResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadRequest, ClientDisconnected, EndpointError
from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
from sam_endpoint.model.tracking.records import track_records
from sam_endpoint.model.tracking.session import (
    BOTH,
    FORWARD,
    TrackingSession,
    cached_frames,
    check_direction,
    embed_frame,
)
from sam_endpoint.model.tracking.ways import AUTO, tracker_for
from sam_endpoint.model.video import Video, VideoLimits, open_video
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.forms import FormRoute
from sam_endpoint.scoring.online.served_model import ServedModel
from sam_endpoint.scoring.online.track_sessions import MakeTracking, StoredSession

LINES = "application/x-ndjson"
router = APIRouter(tags=["Tracking"], route_class=FormRoute)

NEW = "new"
VIDEO_HELP = "The video file: mp4, mov, webm, GIF or animated WebP."
SESSION_HELP = "new to keep the video for further requests, or the session of an earlier response"
PROMPTS_HELP = (
    "JSON: a list of prompts. Each has `frame`, `object`, and `points` with `labels`, or `box`, or both, or `mask`."
)
PROMPTS_EXAMPLE = '[{"frame": 0, "object": 1, "points": [[48, 32]], "labels": [1]}]'
TRACKER_HELP = "auto, memory (the model's memory of earlier frames) or box (the box of the last mask)"
DIRECTION_HELP = "forward, backward (from the last prompt to frame 0) or both (forward, then the frames before)"


@router.post("/track", summary="Track objects in a video", response_class=Response)
def track(
    request: Request,
    video: Annotated[UploadFile | None, File(description=VIDEO_HELP)] = None,
    prompts: Annotated[str, Form(description=PROMPTS_HELP, examples=[PROMPTS_EXAMPLE])] = "",
    model: Annotated[str, Form(description="Name of a served model; empty for the default model.")] = "",
    tracker: Annotated[str, Form(description=TRACKER_HELP)] = AUTO,
    direction: Annotated[str, Form(description=DIRECTION_HELP)] = FORWARD,
    session: Annotated[str, Form(description=SESSION_HELP)] = "",
    count: Annotated[str, Form(description="Number of frames after which the response ends; empty for all.")] = "",
) -> Response:
    """Return one line of JSON per frame and object, as soon as the frame is done.

    A line has `frame`, `object`, `encoded_binary_mask` (COCO run lengths), `size`, `bbox`, `area`, `score` and
    `seconds`, the time of the frame in the video. The last line has `frames`, the number of tracked frames, and
    `error`: null, or why the video could not be tracked further. A response without this line is incomplete.

    With `session=new`, the first line has the `session`, and the `frames`, `size` and `rate` of the video. Further
    requests with this session and without a video add prompts, and continue.
    """
    context = context_of(request.scope)
    check_direction(direction)
    limit = _count(count)
    if session in ("", NEW):
        if video is None or not (prompts or session):
            missing = "video" if video is None else "prompts"
            raise BadRequest(f"{missing}: Field required")
        served = request.app.state.catalog.get(model or None)
        make, nbytes, opened = open_tracking(request, served, video, tracker, direction, session == NEW)
        if session == NEW:
            stored = request.app.state.track_sessions.open(context.tenant or "", served, nbytes, make)
            try:
                add_prompts(stored.tracking, served, prompts, context.call)
            except BaseException:
                request.app.state.track_sessions.close(stored)
                raise
            described = {"session": stored.id, "frames": opened.count, "size": opened.size, "rate": opened.rate}
            lines = _stream_session(stored, direction, context.call, limit, described)
        else:
            tracking = make(context.call.keep)
            add_prompts(tracking, served, prompts, context.call)
            lines = stream_lines(tracking, direction, context.call, limit)
    else:
        if video is not None:
            raise BadRequest(f"video: expected no video in a request with a session, or session={NEW}")
        stored = request.app.state.track_sessions.get(context.tenant or "", session)
        served = stored.served
        add_prompts(stored.tracking, served, prompts, context.call)
        lines = _stream_session(stored, direction, context.call, limit)
    return StreamingResponse(lines, media_type=LINES, headers=served.headers)


@router.post("/track/{session}/prompts", summary="Add prompts to a session")
def add(
    request: Request,
    session: str,
    prompts: Annotated[str, Form(description=PROMPTS_HELP, examples=[PROMPTS_EXAMPLE])],
) -> dict[str, Any]:
    """Add prompts to a session. A response that is in progress goes back to the first frame that they change."""
    context = context_of(request.scope)
    stored = request.app.state.track_sessions.get(context.tenant or "", session)
    return {"session": stored.id, "prompts": add_prompts(stored.tracking, stored.served, prompts, context.call)}


@router.delete("/track/{session}", summary="Close a session")
def close(request: Request, session: str) -> dict[str, Any]:
    """End the response that is in progress, and free the video and the memory of the session."""
    sessions = request.app.state.track_sessions
    stored = sessions.get(context_of(request.scope).tenant or "", session)
    sessions.close(stored)
    return {"session": stored.id, "closed": True}


def _count(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9) or int(text) < 1:
        raise BadRequest("count: expected a whole number from 1 to 999999999, or nothing")
    return int(text)


def open_tracking(
    request: Request, served: ServedModel, file: UploadFile, tracker: str, direction: str, keeps: bool
) -> tuple[MakeTracking, int, Video]:
    """Open the video of a form.

    Args:
        request: the request.
        served: the model.
        file: the video.
        tracker: AUTO, MEMORY or BOX.
        direction: in which the video will be tracked.
        keeps: whether prompts may be added after the request.

    Returns:
        A function that makes the session, given the function that counts its bytes; the size of the file in bytes; and
        the video.
    """
    context, settings = context_of(request.scope), request.app.state.settings
    engine = served.engine_for(context)
    chosen, images = tracker_for(engine.segmenter, tracker), engine.images.limits
    limits = VideoLimits(images.max_pixels, images.max_side, settings.track_frames, settings.body_bytes)
    content = file.file.read()
    file.file.close()
    context.body = b""  # the file has been read, so one copy of it is left
    with context.call.stage("decode"):
        video = open_video(content, limits)
    # Frames that can be asked for again are encoded once.
    embed = cached_frames(engine.cache, video.identity) if keeps or direction == BOTH else embed_frame
    return lambda keep: TrackingSession(chosen, video, keep, keeps, embed), len(content), video


def add_prompts(tracking: TrackingSession, served: ServedModel, prompts: object, call: Call) -> int:
    """Parse prompts, and add them to a session. Return the number of all prompts.

    Args:
        tracking: the session.
        served: the model, with the limits on prompts and objects.
        prompts: the list or its JSON text; nothing to add if it is empty.
        call: context of the request.
    """
    if not prompts:
        return tracking.add([])
    known, video = tracking.objects, tracking.video
    parsed = parse_track_prompts(prompts, video.size, video.count, served.limits.prompts, known, call)
    served.limits.check_objects(len(known | {prompt.object for prompt in parsed}))
    return tracking.add(parsed)


def _stream_session(
    stored: StoredSession, direction: str, call: Call, count: int | None, described: dict[str, Any] | None = None
) -> Iterator[bytes]:
    if described is not None:
        yield (json.dumps(described) + "\n").encode()
    if stored.tracking.objects or described is None:
        with stored.run(call) as tracking:
            yield from stream_lines(tracking, direction, call, count)
    else:
        yield _end(0, None)


def stream_lines(session: TrackingSession, direction: str, call: Call, count: int | None = None) -> Iterator[bytes]:
    """Yield the lines of the response. Errors end the response with a line that names them.

    Each frame has the time limit of a request.
    """
    frames, problem = 0, None
    try:
        for frame in session.run(direction, call, count):
            records = track_records(session.tracker.segmenter, frame.tracked, call)
            lines = [json.dumps({**record, "seconds": round(frame.seconds, 6)}) + "\n" for record in records]
            frames += 1
            yield "".join(lines).encode()
    except ClientDisconnected:
        raise
    except EndpointError as error:
        problem = str(error)
    yield _end(frames, problem)


def _end(frames: int, problem: str | None) -> bytes:
    return (json.dumps({"frames": frames, "error": problem}) + "\n").encode()


def error_response(problem: Problem) -> JSONResponse:
    """Return an error that occurs before the first line: `{"error": message}`."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect("tracking", ("/track",), router, error_response, {}, ("multipart/form-data",))
