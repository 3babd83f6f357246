"""CVAT's dialect: the requests that a CVAT server sends to an interactor or a tracker (functions on nuclio)."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, PlainTextResponse, Response

from sam_endpoint.model.engine import EmbeddedImage
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.prompts import Prompt, parse_prompts
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect, JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import best_masks
from sam_endpoint.scoring.online.dialects.cvat_tracker import track_shapes
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG

# Shape of the features that the decoder in CVAT's browser plugin reads.
PLUGIN_FEATURES = (1, 256, 64, 64)
MAX_PIXELS = 100_000_000  # maximum number of pixels of a mask; the response has a number for each pixel
PIXEL_BYTES = 4  # bytes of one number of the mask in the JSON text, with its comma
router = APIRouter(tags=["CVAT"], route_class=JsonRoute)


class InteractorBody(BaseModel):
    """The request that CVAT's server sends to an interactor, or with shapes or states to a tracker."""

    model_config = ConfigDict(extra="ignore")
    image: str
    pos_points: Any = None
    neg_points: Any = None
    obj_bbox: Any = None
    shapes: Any = None
    states: Any = None


EXAMPLE = {"image": EXAMPLE_PNG, "pos_points": [[48, 32]], "neg_points": [], "obj_bbox": None}


@router.post("/", response_model=None, summary="Segment as an interactor of CVAT, or track as a tracker")
def interactor(
    request: Request, body: Annotated[InteractorBody, Body(openapi_examples={"a disc": {"value": EXAMPLE}})]
) -> Response:
    """Return the mask that points and a box select, and the features that CVAT's browser plugin decodes.

    `mask` has 0 or 255 for each pixel. `blob` has float32 features as base64. The response has `blob` only if the
    default model has features of the original SAM's shape, because the plugin's decoder expects this shape. Without
    points and box, the response has only `blob`.

    A request with `shapes` or `states` is one to a tracker: the response has the `shapes` in this image, and the
    `states` for the request with the next image.
    """
    context = context_of(request.scope)
    served = request.app.state.catalog.get()
    engine = served.engine_for(context)
    is_tracker = bool(body.shapes or body.states)
    prompt = None if is_tracker else _prompt(body)
    if is_tracker:
        lists = [part for part in (body.shapes, body.states) if isinstance(part, list)]
        served.limits.check_objects(max(map(len, lists), default=0))
    image = engine.embed(engine.images.reference(body.image), context.call)
    if is_tracker:
        key = request.app.state.state_key
        tracked = track_shapes(engine, image, body.shapes, body.states, key, context.call)
        return ChunkedJsonResponse(tracked, headers=served.headers)
    answer: dict[str, Any] = {}
    if prompt is not None:
        engine.check_prompts([prompt])
        height, width = image.size
        if height * width > MAX_PIXELS:
            raise BadInput("image", f"at most {MAX_PIXELS:,} pixels", f"{width} x {height}")
        context.call.count_answer(PIXEL_BYTES * height * width)
        (result,) = best_masks(engine, image, [prompt], multimask_output=True, call=context.call)
        with context.call.stage("render"):
            answer["mask"] = (result.array().view(np.uint8) * 255).tolist()
    blob = _blob(image)
    if blob is not None:
        answer["blob"] = blob
    elif prompt is None:
        raise BadInput("pos_points", "at least one point, or obj_bbox", "neither")
    return ChunkedJsonResponse(answer, headers=served.headers)


def _prompt(body: InteractorBody) -> Prompt | None:
    """Return the prompt of a request, or None if it has neither points nor a box. Raises BadInput."""
    positive, negative = body.pos_points or [], body.neg_points or []
    if not isinstance(positive, list) or not isinstance(negative, list):
        raise BadInput("pos_points", "[[x, y], ...] in pixels for pos_points and neg_points", "another form")
    points = [positive + negative] if positive or negative else None
    labels = [[1] * len(positive) + [0] * len(negative)] if points else None
    box = body.obj_bbox or None
    if isinstance(box, list) and len(box) == 2:
        box = [*box[0], *box[1]] if all(isinstance(corner, list) for corner in box) else box
    prompts = parse_prompts(points, labels, [box] if box else None, None)
    return prompts[0] if prompts else None


def _blob(image: EmbeddedImage) -> str | None:
    features = image.embedding.features[0]
    if tuple(features.shape) != PLUGIN_FEATURES or len(image.embedding.features) > 1:
        return None
    return base64.b64encode(features.float().cpu().numpy().tobytes()).decode()


def error_response(problem: Problem) -> PlainTextResponse | JSONResponse:
    """Return an error as nuclio does: its message as plain text."""
    return PlainTextResponse(problem.message, problem.status)


class _RootDialect(Dialect):
    def owns(self, path: str) -> bool:
        """Return whether a path is the root. A nuclio function has no other path."""
        return path == "/"


DIALECT = _RootDialect(
    "cvat",
    ("/",),
    router,
    error_response,
    {"input_points": "pos_points", "input_labels": "pos_points", "input_boxes": "obj_bbox"},
)
