"""X-AnyLabeling's dialect for videos: frames once, then points on frames, and then the polygons of all frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import INTERNAL_ERROR, BadInput, BadRequest, ClientDisconnected, EndpointError, kind
from sam_endpoint.model.segmenter import Segmentation
from sam_endpoint.model.tracking.session import FORWARD, TimedFrame, TrackingSession, cached_frames
from sam_endpoint.model.tracking.ways import tracker_for
from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect, JsonRoute
from sam_endpoint.scoring.online.dialects.frames import open_frames
from sam_endpoint.scoring.online.dialects.tracking import add_prompts
from sam_endpoint.scoring.online.dialects.xanylabeling import FINENESS, LABEL, outlines
from sam_endpoint.scoring.online.dialects.xanylabeling import error_response as image_error
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from sam_endpoint.scoring.online.track_sessions import StoredSession

EVENTS = "text/event-stream"
RESULT_COPIES = 4  # bytes of shapes in memory for each byte of their text
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = "pending", "processing", "completed", "failed", "cancelled"
router = APIRouter(prefix="/v1/video", tags=["X-AnyLabeling"], route_class=JsonRoute)
plain = APIRouter()  # routes whose requests have no body


class InitBody(BaseModel):
    """A request that sends the frames of a video."""

    model_config = ConfigDict(extra="ignore")
    model: str
    frames: list[str]
    start_frame_index: int = 0


class VideoParams(BaseModel):
    """Params of a prompt. Clients send further params, which the endpoint ignores."""

    model_config = ConfigDict(extra="ignore")
    conf_threshold: float = Field(default=0.0, ge=0, le=1)
    epsilon_factor: float = Field(default=FINENESS, ge=0, le=1)


class PromptBody(BaseModel):
    """A request with points on one frame. The points are x and y from 0 to 1, as shares of the frame's size."""

    model_config = ConfigDict(extra="ignore")
    session_id: str
    model: str = ""
    frame_index: int = 0
    points: Any = None
    point_labels: Any = None
    obj_id: int = 1
    text_prompt: str | None = None
    params: VideoParams = VideoParams()


class PropagateBody(BaseModel):
    """A request to track the prompted objects, from `start_frame` to `end_frame`."""

    model_config = ConfigDict(extra="ignore")
    session_id: str
    model: str = ""
    start_frame: int | None = Field(default=None, ge=0)
    end_frame: int | None = Field(default=None, ge=0)


FRAME_EXAMPLE = f"data:image/png;base64,{EXAMPLE_PNG}"
INIT_EXAMPLE = {"model": "sam2/hiera_tiny", "frames": [FRAME_EXAMPLE] * 2, "start_frame_index": 0}
Propagation = dict[str, Any]  # the status of a task, as the client reads it


@router.post("/init", response_model=None, summary="Send the frames of a video")
def init(
    request: Request, body: Annotated[InitBody, Body(openapi_examples={"two frames": {"value": INIT_EXAMPLE}})]
) -> JSONResponse:
    """Open a session for the frames. It is closed by `cleanup`, or after some minutes without requests."""
    context = context_of(request.scope)
    served = request.app.state.catalog.get(body.model)
    engine = served.engine_for(context)
    video, nbytes = open_frames(request, engine, "frames", body.frames)
    body.frames.clear()
    context.body = b""
    tracker, embed = tracker_for(engine.segmenter), cached_frames(engine.cache, video.identity)
    stored = request.app.state.track_sessions.open(
        context.tenant or "", served, nbytes, lambda keep: TrackingSession(tracker, video, keep, True, embed)
    )
    data = {"session_id": stored.id, "total_frames": video.count, "start_frame_index": body.start_frame_index}
    return _success(data, served.headers)


@router.post("/prompt", response_model=None, summary="Select an object by points on a frame")
def prompt(request: Request, body: PromptBody) -> JSONResponse:
    """Return the polygons of all objects in the frame. Points replace earlier points on this object and frame."""
    context = context_of(request.scope)
    stored = _session(request, body.session_id)
    if body.text_prompt:
        raise BadInput("text_prompt", "no text, since objects in videos are selected by points", "a text")
    points = _pixels(body.points, stored.tracking.video.size)
    item = {"frame": body.frame_index, "object": body.obj_id, "points": points, "labels": body.point_labels}
    add_prompts(stored.tracking, stored.served, [item], context.call)
    stored.notes["params"] = body.params
    shapes: list[dict[str, Any]] = []
    with stored.run(context.call) as tracking:
        for frame in tracking.run(FORWARD, context.call, start=body.frame_index):
            if frame.tracked.frame >= body.frame_index:
                shapes = _shapes(tracking, frame, body.params, context.call)
                break
    data = {"frame_index": body.frame_index, "masks": shapes, "num_objects": len(stored.tracking.objects)}
    return _success(data, stored.served.headers)


@router.post("/propagate/stream", response_class=Response, summary="Track the objects, and send the progress")
def propagate_stream(request: Request, body: PropagateBody) -> Response:
    """Return server-sent events: `started`, `progress` for each frame, `completed` with all polygons, or `error`."""
    context = context_of(request.scope)
    stored = _session(request, body.session_id)
    events = _events(stored, body, context.call)
    lines = (b"data: " + json_text.dump(event) + b"\n\n" for event in events)
    return StreamingResponse(lines, media_type=EVENTS, headers={**stored.served.headers, "cache-control": "no-cache"})


@router.post("/propagate", response_model=None, summary="Track the objects in the background")
def propagate(request: Request, body: PropagateBody) -> JSONResponse:
    """Begin to track. `status` returns the progress and the results. A session has one task at a time."""
    stored = _session(request, body.session_id)
    if stored.notes.get("task", {}).get("status") in (PENDING, PROCESSING):
        raise BadRequest("session_id: expected a session without a task in progress; cancel the task first")
    call = request.app.state.track_sessions.new_call(stored.tenant)
    task: Propagation = {"task_id": stored.id, "status": PENDING, "progress": 0.0, "results": {}, "error": None}
    stored.notes.update(task=task, call=call)

    def work() -> None:
        try:
            for event in _events(stored, body, call, stored.keep):
                if event["type"] == "progress":
                    task.update(status=PROCESSING, progress=event["progress"], current_frame=event["current_frame"])
                elif event["type"] == "completed":
                    task.update(status=COMPLETED, progress=1.0, results=event["results"])
                elif event["type"] == "error":
                    task.update(status=FAILED, error=event["message"])
        except ClientDisconnected:
            task["status"] = CANCELLED
        except Exception:  # the log gets its type and place
            task.update(status=FAILED, error=INTERNAL_ERROR)
            raise
        finally:
            call.close()

    Thread(target=work, name="video task", daemon=True).start()
    data = {"task_id": stored.id, "status": PROCESSING, "message": "Propagation started"}
    return _success(data, stored.served.headers)


@plain.get("/status/{task_id}", response_model=None, summary="Get the progress of a background task")
def status(request: Request, task_id: str) -> JSONResponse:
    """Return `status` (pending, processing, completed, failed or cancelled), `progress` from 0 to 1, and `results`."""
    return _success(_task(_session(request, task_id)))


@plain.post("/cancel/{task_id}", response_model=None, summary="Cancel a background task")
def cancel(request: Request, task_id: str) -> JSONResponse:
    """Stop to track. The session, and what was tracked so far, are kept."""
    stored = _session(request, task_id)
    task = _task(stored)
    stored.notes["call"].cancel()
    return _success({"task_id": task["task_id"], "status": CANCELLED})


@plain.post("/cleanup/{session_id}", response_model=None, summary="Close a session")
def cleanup(request: Request, session_id: str) -> JSONResponse:
    """Free the frames and the memory of a session."""
    request.app.state.track_sessions.close(_session(request, session_id))
    return _success({"message": "the session is closed"})


router.include_router(plain)


def _events(
    stored: StoredSession, body: PropagateBody, call: Call, keep: Callable[[int], None] = lambda nbytes: None
) -> Iterator[dict[str, Any]]:
    """Track, and yield the events that the client reads. `keep` counts the bytes of the results."""
    params, count = stored.notes.get("params", VideoParams()), stored.tracking.video.count
    start, end = body.start_frame or 0, count - 1 if body.end_frame is None else body.end_frame
    results: dict[str, Any] = {}
    yield {"type": "started", "total_frames": count, "start_frame_index": start}
    try:
        with stored.run(call) as tracking:
            for frame in tracking.run(FORWARD, call, start=start):
                number = frame.tracked.frame
                if number > end:
                    break
                if number >= start:
                    shapes = _shapes(tracking, frame, params, call)
                    results[str(number)] = {"masks": shapes}
                    keep(RESULT_COPIES * len(json.dumps(shapes)))
                    progress = (number + 1 - start) / max(1, end + 1 - start)
                    yield {
                        "type": "progress", "current_frame": number, "total_frames": count,
                        "num_objects": len(frame.tracked.objects), "progress": min(1.0, progress),
                    }  # fmt: skip
                if number == end:
                    break
    except ClientDisconnected:
        raise
    except EndpointError as error:
        # The client drops the results of a video with an error, so those of the frames before are sent as complete.
        if not results:
            yield {"type": "error", "message": str(error)}
            return
        yield {"type": "completed", "results": results, "total_frames": count, "message": str(error)}
        return
    yield {"type": "completed", "results": results, "total_frames": count}


def _shapes(tracking: TrackingSession, frame: TimedFrame, params: VideoParams, call: Call) -> list[dict[str, Any]]:
    """Return the polygons of the objects of a frame."""
    shapes = []
    for thing in frame.tracked.objects:
        segmentation = Segmentation(thing.logits[None], np.array([thing.score], np.float32), frame.tracked.size)
        if thing.score < params.conf_threshold:
            continue
        with call.stage("mask"):
            (mask,) = tracking.tracker.segmenter.cropped_masks(segmentation)
        shapes += [
            {"label": LABEL, "shape_type": "polygon", "points": points, "score": thing.score, "group_id": thing.object}
            for points in outlines(mask, params.epsilon_factor, call)
        ]
    return shapes


def _pixels(points: Any, size: tuple[int, int]) -> Any:
    """Scale points from shares of the frame's size to pixels. Raises BadInput."""
    height, width = size
    is_list = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    if not is_list or not all(isinstance(number, (int, float)) for point in points for number in point):
        raise BadInput("points", "[[x, y], ...] from 0 to 1", kind(points))
    return [[float(x) * width, float(y) * height] for x, y in points]


def _session(request: Request, session: str) -> StoredSession:
    stored: StoredSession = request.app.state.track_sessions.get(context_of(request.scope).tenant or "", session)
    return stored


def _task(stored: StoredSession) -> Propagation:
    task: Propagation | None = stored.notes.get("task")
    if task is None:
        raise BadRequest("task_id: expected the task of a propagation, got a session without one")
    return task


def _success(data: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    return ChunkedJsonResponse({"success": True, "data": data}, headers=headers)


def error_response(problem: Problem) -> JSONResponse:
    """Return an error as for images, but with status 404 for an expired session: the client then opens another."""
    response = image_error(problem)
    response.status_code = 404 if problem.status == 404 else response.status_code
    return response


DIALECT = Dialect("x-anylabeling-video", ("/v1/video/",), router, error_response)
