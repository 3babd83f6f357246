"""samapi's dialect: the requests for videos that QuPath's extension for SAM sends."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadInput, BadParameter, kind
from sam_endpoint.model.segmenter import Segmentation
from sam_endpoint.model.tracking.session import FORWARD, TimedFrame, TrackingSession
from sam_endpoint.model.tracking.ways import tracker_for
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect, JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import largest_polygon
from sam_endpoint.scoring.online.dialects.frames import open_frames
from sam_endpoint.scoring.online.dialects.tracking import add_prompts
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG

# The names of the models of samapi that track, and the names of this project.
MODELS = {
    "sam2_t": "sam2/hiera_tiny",
    "sam2_s": "sam2/hiera_small",
    "sam2_bp": "sam2/hiera_b_plus",
    "sam2_l": "sam2/hiera_large",
}
AXES = {"XYT": ("z", "t"), "XYZ": ("t", "z")}  # the axis of `plane_position`, and the axis of the frames
PROMPT_FORM = '[{"obj_id": 1, "point_coords": [[x, y]], "point_labels": [1], "bbox": [x1, y1, x2, y2]}, ...]'
router = APIRouter(tags=["samapi"], route_class=JsonRoute)


class VideoBody(BaseModel):
    """A request to track objects through images. The endpoint ignores other fields."""

    model_config = ConfigDict(extra="ignore")
    type: str = "sam2_t"
    dirname: str | None = None
    b64imgs: list[str] | None = None
    axes: str = "XYT"
    plane_position: int | None = 0
    start_frame_idx: int | None = Field(default=None, ge=0)
    max_frame_num_to_track: int | None = Field(default=None, ge=0)
    objs: dict[str, Any] | None = None


EXAMPLE = {
    "type": "sam2_t",
    "b64imgs": [EXAMPLE_PNG, EXAMPLE_PNG],
    "axes": "XYT",
    "plane_position": 0,
    "objs": {"0": [{"obj_id": 1, "point_coords": [[48, 32]], "point_labels": [1]}]},
}


@router.post("/sam/video/", response_model=None, summary="Track objects through the planes of an image in QuPath")
def track(
    request: Request, body: Annotated[VideoBody, Body(openapi_examples={"two planes": {"value": EXAMPLE}})]
) -> JSONResponse:
    """Return a GeoJSON feature for each object in each frame in which it is visible.

    A feature is the outline of the object's largest piece. Its geometry has the `plane` of the frame, and its
    properties are `object_idx`, `label`, `quality` and `sam_model`. The objects are tracked forward.
    """
    context = context_of(request.scope)
    if body.type not in MODELS:
        raise BadParameter(f"type: expected a model that tracks, one of {', '.join(MODELS)}")
    if body.axes not in AXES:
        raise BadParameter(f"axes: expected one of {', '.join(AXES)}")
    if body.b64imgs is None:
        got = "only the name of a folder" if body.dirname is not None else "nothing"
        raise BadInput("b64imgs", "the images as a list of base64 texts", got)
    catalog = request.app.state.catalog
    served = catalog.get(MODELS[body.type])
    engine = served.engine_for(context)
    video, nbytes = open_frames(request, engine, "b64imgs", body.b64imgs)
    body.b64imgs.clear()
    context.body = b""
    context.call.keep(nbytes)
    tracking = TrackingSession(tracker_for(engine.segmenter), video, context.call.keep)
    add_prompts(tracking, served, _prompts(body.objs), context.call)
    start, count = body.start_frame_idx or 0, body.max_frame_num_to_track
    features = []
    for frame in tracking.run(FORWARD, context.call):
        if frame.tracked.frame >= start:
            features += _features(tracking, frame, body, context.call)
            # As in Meta's code, `max_frame_num_to_track` does not count the first frame.
            if count is not None and frame.tracked.frame - max(start, _first(body.objs)) >= count:
                break
    return ChunkedJsonResponse(features, headers=served.headers)


def _first(objs: dict[str, Any] | None) -> int:
    return min(map(int, objs or {"0": None}))


def _prompts(objs: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Convert the prompts by frame to the project's list of prompts. Raises BadInput."""
    prompts = []
    for frame, things in (objs or {}).items():
        if not (frame.isascii() and frame.isdigit() and len(frame) < 10):
            raise BadInput("objs", "numbers of frames as keys", "another key")
        if not isinstance(things, list) or not all(isinstance(thing, dict) for thing in things):
            raise BadInput("objs", f"{PROMPT_FORM} for each frame", kind(things))
        prompts += [
            {
                "frame": int(frame),
                "object": thing.get("obj_id"),
                "points": thing.get("point_coords") or None,
                "labels": thing.get("point_labels") or None,
                "box": thing.get("bbox") or None,
            }
            for thing in things
        ]
    if not prompts:
        raise BadInput("objs", f"{PROMPT_FORM} for at least one frame", "no prompts")
    return prompts


def _features(tracking: TrackingSession, frame: TimedFrame, body: VideoBody, call: Call) -> list[dict[str, Any]]:
    fixed, moving = AXES[body.axes]
    plane = {"c": -1, fixed: body.plane_position or 0, moving: frame.tracked.frame}
    features = []
    for thing in frame.tracked.objects:
        segmentation = Segmentation(thing.logits[None], np.array([thing.score], np.float32), frame.tracked.size)
        with call.stage("mask"):
            (mask,) = tracking.tracker.segmenter.cropped_masks(segmentation)
        if outline := largest_polygon(mask, call):
            properties = {
                "object_idx": thing.object,
                "label": "object",
                "quality": round(thing.score, 6),
                "sam_model": body.type,
            }
            geometry = {"type": "Polygon", "coordinates": [[*outline, outline[0]]], "plane": plane}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    return features


def error_response(problem: Problem) -> JSONResponse:
    """Return an error as samapi does: `{"detail": message}`."""
    return JSONResponse({"detail": problem.message}, problem.status)


DIALECT = Dialect("samapi", ("/sam/video",), router, error_response, {"prompts": "objs"})
