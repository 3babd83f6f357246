"""X-AnyLabeling's dialect: a request has marks on an image, or texts, and the response has polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Body, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from sam_endpoint.model import masks
from sam_endpoint.model.call import Call
from sam_endpoint.model.concepts import Concept
from sam_endpoint.model.concepts.parsing import parse_concepts
from sam_endpoint.model.concepts.predict import find_instances
from sam_endpoint.model.engine import EmbeddedImage, Engine
from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.everything import Grid
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.masks import CroppedMask
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.prompts.cells import check_count
from sam_endpoint.model.prompts.parsing import MAX_COORDINATE
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect, JsonRoute
from sam_endpoint.scoring.online.dialects.best_masks import best_masks, polygon_area, polygons
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from sam_endpoint.scoring.online.served_model import ServedModel
from sam_endpoint.scoring.polygons import simplify_outline

LABEL = "AUTOLABEL_OBJECT"  # the client replaces this label by the label that the user chooses
FINENESS = 0.001  # default epsilon_factor: tolerance of the outline as a share of its length
SMALL_PIECE = 0.2  # share of the mean area of a mask's pieces; the response omits smaller pieces
WIDGETS = (
    {"name": "button_add_point", "value": None},
    {"name": "button_remove_point", "value": None},
    {"name": "button_add_rect", "value": None},
    {"name": "button_clear", "value": None},
    {"name": "button_finish_object", "value": None},
    {"name": "button_run", "value": None},
    {"name": "mask_fineness_slider", "value": 1},
    {"name": "toggle_preserve_existing_annotations", "value": False},
)
TEXT_WIDGETS = (
    {"name": "edit_text", "value": None},
    {"name": "button_send", "value": None},
    {"name": "input_conf", "value": None},
    {"name": "edit_conf", "value": 0.0},
)
MARK_FORM = 'marks [{"type": "point" or "rectangle", "data": [x, y] or [x1, y1, x2, y2], "label": 1 or 0}, ...]'
OK = 200
ScoredMask = tuple[np.ndarray | CroppedMask, float, str]  # mask, score and label of an object
router = APIRouter(prefix="/v1", tags=["X-AnyLabeling"], route_class=JsonRoute)


class PredictParams(BaseModel):
    """Params of a prediction. Clients send further params, which the endpoint ignores."""

    model_config = ConfigDict(extra="ignore")
    conf_threshold: float = Field(default=0.0, ge=0, le=1)
    epsilon_factor: float = Field(default=FINENESS, ge=0, le=1)
    text_prompt: str | None = None
    marks: Any = None


class PredictBody(BaseModel):
    """A request for shapes in an image."""

    model_config = ConfigDict(extra="ignore")
    model: str
    image: str
    params: PredictParams = PredictParams()


EXAMPLE = {
    "model": "sam2/hiera_tiny",
    "image": f"data:image/png;base64,{EXAMPLE_PNG}",
    "params": {"marks": [{"type": "point", "data": [48, 32], "label": 1}]},
}


@router.get("/models", summary="List the models for X-AnyLabeling")
def list_models(request: Request) -> dict[str, Any]:
    """List the served models and the controls that the client shows for them."""
    models = request.app.state.catalog.describe()
    return _success({model["name"]: _described(model["name"], model["capabilities"]) for model in models})


@router.get("/models/{model:path}/info", summary="Describe one model")
def model_info(request: Request, model: str) -> dict[str, Any]:
    """Describe one model."""
    catalog = request.app.state.catalog
    key = catalog.key(model)
    (capabilities,) = (described["capabilities"] for described in catalog.describe() if described["name"] == key)
    return _success(_described(key, capabilities))


@router.post("/predict", response_model=None, summary="Segment marked objects, objects by text, or every object")
def predict(
    request: Request, body: Annotated[PredictBody, Body(openapi_examples={"a disc": {"value": EXAMPLE}})]
) -> JSONResponse:
    """Return the polygons of the objects that the marks or texts select. Without both, of every object.

    Commas or full stops separate texts. A text is the label of its objects.
    """
    context, params = context_of(request.scope), body.params
    served: ServedModel = request.app.state.catalog.get(body.model)
    engine = served.engine_for(context)
    concepts = _concepts(params)
    engine.concepts.check(concepts)
    prompts, grid = _prompts(params.marks, engine.max_prompts), served.defaults.read({}).grid
    engine.check_prompts(prompts)
    if prompts and concepts:
        raise BadInput("text_prompt", "either text_prompt or marks", "both")
    if prompts or concepts:
        served.limits.check_prompts(len(prompts) + len(concepts))
    else:
        served.limits.check_points(1, grid.count)
    reference = engine.images.reference(body.image, upright=True)
    scored_masks: Iterable[ScoredMask]
    if concepts:
        scored_masks = _by_text(served, engine, reference, concepts, params, context.call)
    elif prompts:
        scored_masks = _selected(engine, engine.embed(reference, context.call), prompts, context.call)
    else:
        scored_masks = _all(engine, engine.embed(reference, context.call), grid, params, context.call)
    shapes = [
        {
            "label": label,
            "shape_type": "polygon",
            "points": points,
            "score": min(1.0, max(0.0, score)),
            "group_id": group,
        }
        for group, (mask, score, label) in enumerate(scored_masks, 1)
        for points in outlines(mask, params.epsilon_factor, context.call)
    ]
    # False: the client adds the new shapes to the shapes of the image. None: a setting of the client decides.
    content = {"shapes": shapes, "description": "", "replace": False if prompts or concepts else None}
    return ChunkedJsonResponse(_success(content), headers=served.headers)


def _concepts(params: PredictParams) -> list[Concept]:
    """Return the concepts of `text_prompt`. Raises BadInput."""
    text = params.text_prompt or ""
    parts = text.split("," if "," in text else ".")
    texts = list(dict.fromkeys(part.strip() for part in parts if part.strip())) or [text]
    return parse_concepts(texts, None, None) or [] if text else []


def _by_text(
    served: ServedModel, engine: Engine, ref: ImageRef, concepts: list[Concept], params: PredictParams, call: Call
) -> Iterator[ScoredMask]:
    """Yield the instances of texts, with the texts as labels."""
    thresholds = served.defaults.read({}).thresholds
    if params.conf_threshold:  # the client sends 0 unless the user sets a threshold
        thresholds = replace(thresholds, score=params.conf_threshold)
    with engine.embedded(ref, engine.concepts.needs_pixels(concepts), call) as image:
        for index, segmentation in find_instances(engine, image, concepts, thresholds, call):
            with call.stage("mask"):
                (mask,) = engine.cropped_masks(segmentation)
            yield mask, float(segmentation.scores[0]), concepts[index].text or LABEL


def _selected(engine: Engine, image: EmbeddedImage, prompts: list[Prompt], call: Call) -> list[ScoredMask]:
    results = best_masks(engine, image, prompts, multimask_output=True, call=call)
    return [(result.mask, result.score, LABEL) for result in results]


def _all(engine: Engine, image: EmbeddedImage, grid: Grid, params: PredictParams, call: Call) -> Iterator[ScoredMask]:
    """Yield every object in the image whose predicted IoU is at least the client's threshold, one mask at a time."""
    for segmented in engine.everything(image, grid, call=call):
        if segmented.score >= params.conf_threshold:
            yield masks.from_rle(segmented.rle), segmented.score, LABEL


def outlines(mask: np.ndarray | CroppedMask, epsilon_factor: float, call: Call) -> list[list[list[float]]]:
    """Return the outlines of a mask as closed polygons, without its smallest pieces.

    Args:
        mask: the mask at the image's size.
        epsilon_factor: tolerance of each outline, as a share of the outline's length. The smallest tolerance is one
            pixel, except for an `epsilon_factor` of 0, which keeps every corner.
        call: counts the bytes of the response.

    Returns:
        A list [[x, y], ...] in pixels for each piece. The last corner of a piece is the same as the first.
    """
    pieces = [np.asarray(polygon) for polygon in polygons(mask, call)]
    areas = np.array([polygon_area(piece) for piece in pieces])
    with call.stage("render"):
        is_large = areas > SMALL_PIECE * areas.mean() if pieces else areas
        simple = [
            simplify_outline(piece, epsilon_factor) for piece, large in zip(pieces, is_large, strict=True) if large
        ]
    return [[*points.tolist(), points[0].tolist()] for points in simple]


def _prompts(marks: object, max_prompts: int) -> list[Prompt]:
    """Convert marks to prompts.

    Without rectangles or with a single rectangle, all marks become one prompt. Otherwise, each rectangle becomes a
    prompt, and a point belongs to every rectangle that contains the point.

    Raises:
        BadInput: a mark has another form. Or there are several rectangles, and none of them contains a point.
    """
    if marks is None:
        return []
    if not isinstance(marks, list):
        raise BadInput("marks", MARK_FORM, kind(marks))
    check_count("marks", len(marks), max_prompts)
    parsed_marks = [_mark(mark, f"marks[{number}]") for number, mark in enumerate(marks)]
    points = [(data, label) for data, label in parsed_marks if len(data) == 2]
    boxes = [np.array(data, np.float32) for data, _ in parsed_marks if len(data) == 4]
    if len(boxes) <= 1:
        return [_prompt(points, boxes[0] if boxes else None)] if parsed_marks else []
    inside = [[(data, label) for data, label in points if _contains(box, data)] for box in boxes]
    for number, (data, _) in enumerate(parsed_marks):
        if len(data) == 2 and not any(_contains(box, data) for box in boxes):
            raise BadInput(f"marks[{number}]", "a point inside one of the rectangles", "a point outside of all of them")
    return [_prompt(own, box) for own, box in zip(inside, boxes, strict=True)]


def _mark(mark: object, place: str) -> tuple[list[float], int]:
    """Return the numbers and the label of a mark. Raises BadInput."""
    if not isinstance(mark, dict):
        raise BadInput(place, MARK_FORM, kind(mark))
    form, data, label = mark.get("type"), mark.get("data"), mark.get("label", 1)
    lengths: dict[object, Literal[2, 4]] = {"point": 2, "rectangle": 4}
    if form not in ("point", "rectangle") or label not in (0, 1):
        raise BadInput(place, MARK_FORM, "another type or label")
    if form == "rectangle" and label == 0:
        expected = "a rectangle with label 1; to exclude a part of the image, send a point with label 0"
        raise BadInput(place, expected, "label 0")
    if (
        not isinstance(data, list)
        or len(data) != lengths[form]
        or not all(isinstance(number, (int, float)) and abs(number) <= MAX_COORDINATE for number in data)
    ):
        raise BadInput(f"{place}.data", f"{lengths[form]} numbers in pixels", kind(data))
    if form == "rectangle":
        data = [*np.minimum(data[:2], data[2:]).tolist(), *np.maximum(data[:2], data[2:]).tolist()]
    return data, int(label)


def _contains(box: np.ndarray, point: Sequence[float]) -> bool:
    x, y = point
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _prompt(points: Sequence[tuple[list[float], int]], box: np.ndarray | None) -> Prompt:
    if not points:
        return Prompt(box=box)
    return Prompt(
        np.array([data for data, _ in points], np.float32), np.array([label for _, label in points], np.int64), box
    )


def _described(name: str, capabilities: Mapping[str, bool] | None) -> dict[str, Any]:
    """Describe a model with known capabilities. None: the model is not loaded yet."""
    text = bool(capabilities and capabilities["text"])
    widgets, mode = [*WIDGETS, *(TEXT_WIDGETS if text else ())], "text_prompt" if text else "default"
    # Images are the first task, which the client chooses by default. In the second, it sends all images of the folder.
    tasks = [
        {"id": task, "name": task.capitalize(), "batch_processing_mode": batch, "active_widgets": _names(active)}
        for task, batch, active in (("images", mode, widgets), ("video", "video", WIDGETS))
    ]
    return {
        "model_id": name,
        "display_name": name,
        "widgets": widgets,
        "params": {"epsilon_factor": FINENESS},
        "capabilities": {"points": True, "rectangles": True, "text": text, "video": True},
        "batch_processing_mode": mode,
        "available_tasks": tasks,
    }


def _names(widgets: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(widget["name"]): {} for widget in widgets}


def _success(data: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "data": data}


def error_response(problem: Problem) -> JSONResponse:
    """Return an error as X-AnyLabeling reads it: status 200, except where a key is missing or the endpoint is full."""
    status = problem.status if problem.status in (401, 403, 503) else OK
    return JSONResponse({"success": False, "error": {"code": problem.code, "message": problem.message}}, status)


DIALECT = Dialect("x-anylabeling", ("/v1/",), router, error_response, {"input_text": "text_prompt"})
