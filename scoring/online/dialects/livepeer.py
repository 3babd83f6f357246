"""Livepeer's dialect: a multipart form in, three JSON texts out, the best mask first."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.routing import APIRoute
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse, Response, StreamingResponse

from sam_endpoint.model.call import Call
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput, UnknownModel, kind
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.prompts import EMPTY_PROMPT, parse_prompts
from sam_endpoint.model.prompts.cells import parse_cell
from sam_endpoint.model.prompts.parsing import MASK_FORM, nesting_depth
from sam_endpoint.model.segmenter import Segmentation
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.catalog import Catalog, ServedModel
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect

MAX_NUMBERS = 50_000_000  # of the masks of one response, which are written as text, number by number
ROWS_A_PIECE = 16  # rows of a mask that are written at once
FULL_BYTES = 8  # of a pixel of a mask while it is upscaled


class _FormParser(MultiPartParser):
    """Keeps all parts of a form in memory, where its body is already; a disk could be full or read-only."""

    spool_max_size = sys.maxsize


class _FormRoute(APIRoute):
    """A route whose form is parsed without temporary files."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, which finds the form parsed."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            if "boundary=" in request.headers.get("content-type", ""):
                try:
                    # Where Starlette keeps the result of `Request.form`.
                    request._form = await _FormParser(request.headers, request.stream()).parse()
                except MultiPartException:
                    raise HTTPException(400) from None
            return await handle(request)

        return parse_and_handle


router = APIRouter(tags=["Livepeer"], route_class=_FormRoute)


@router.post("/segment-anything-2")
def segment(
    request: Request,
    image: Annotated[UploadFile, File(description="the picture")],
    model_id: Annotated[str, Form(description="a name of the catalog; empty for the default model")] = "",
    point_coords: Annotated[str | None, Form(examples=["[[48, 32]]"])] = None,
    point_labels: Annotated[str | None, Form(examples=["[1]"])] = None,
    box: Annotated[str | None, Form(examples=["[30, 14, 66, 50]"])] = None,
    mask_input: Annotated[str | None, Form(description="1 x height x width logits of an earlier answer")] = None,
    multimask_output: Annotated[bool, Form()] = True,
    return_logits: Annotated[bool, Form(description="masks as logits, not as true and false")] = True,
    normalize_coords: Annotated[bool, Form(description="coordinates are in pixels; false: already 0 to 1")] = True,
    safety_check: Annotated[bool, Form(include_in_schema=False)] = True,
) -> Response:
    """Return masks of one prompt on one picture, with scores and low-resolution logits, by falling score."""
    started = time.perf_counter()
    context = context_of(request.scope)
    try:
        served = _served(request.app.state.catalog, model_id)
    except UnknownModel as error:
        return shape(Problem.of_status(400, str(error)))
    engine = served.engine_for(context)
    embedded = engine.embed(ImageRef.content(image.file.read()), context.call)
    size = (1, 1) if normalize_coords else embedded.size
    prompts = parse_prompts(
        _scaled(point_coords, "point_coords", size),
        point_labels,
        _scaled(box, "box", size),
        _logits(mask_input),
        engine.max_prompts,
    )
    if len(prompts) > 1:
        raise BadInput("point_coords", "one prompt: (points, 2) and one box", f"{len(prompts)} prompts")
    prompts = prompts or [EMPTY_PROMPT]
    engine.check_prompts(prompts)
    _check_size(embedded.size, 3 if multimask_output else 1)
    (segmentation,) = engine.segment(embedded, prompts, multimask_output, context.call)
    order = np.argsort(-segmentation.scores, kind="stable")
    logits = segmentation.logits.float().cpu().numpy()[order]
    milliseconds = f"{1000 * (time.perf_counter() - started):.0f}"
    return StreamingResponse(
        _answer(engine, segmentation, order, logits, return_logits, context.call),
        media_type="application/json",
        headers={**served.headers, "x-milliseconds": milliseconds},
    )


def _answer(
    engine: Engine, segmentation: Segmentation, order: np.ndarray, logits: np.ndarray, as_logits: bool, call: Call
) -> Iterator[bytes]:
    """Yield the answer in pieces: three JSON texts, whose numbers need no escapes, in a JSON object.

    The masks of a 12-megapixel image are a gigabyte of text.
    """
    height, width = segmentation.size
    with call.hold(FULL_BYTES * height * width * len(order)):
        with call.stage("mask"):
            masks = _full_masks(engine, segmentation, as_logits)
        yield b'{"masks":"'
        yield from _array_text(masks, order, call)
    yield b'","scores":"' + json.dumps(segmentation.scores[order].tolist()).encode() + b'","logits":"'
    yield from _array_text(logits, np.arange(len(logits)), call)
    yield b'"}'


def _array_text(maps: np.ndarray, order: np.ndarray, call: Call) -> Iterator[bytes]:
    """Yield the JSON text of (m, height, width) maps, in another order of the first axis."""
    before = b"[["
    for place in order:
        for start in range(0, maps.shape[1], ROWS_A_PIECE):
            with call.stage("render"):
                text = json.dumps(maps[place, start : start + ROWS_A_PIECE].tolist()).encode()
            yield before + text[1:-1]
            before = b", "
        before = b"], ["
    yield b"]]"


def shape(problem: Problem) -> JSONResponse:
    """Return an error as Livepeer's clients read it."""
    return JSONResponse({"detail": {"msg": problem.message}}, problem.status)


DIALECT = Dialect(
    "livepeer",
    ("/segment-anything-2",),
    router,
    shape,
    {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"},
    ("multipart/form-data",),
)


def _served(catalog: Catalog, model_id: str) -> ServedModel:
    """Return the model of that name; without a name a SAM 2, as the route says, or the default if there is none."""
    try:
        return catalog.get(model_id or catalog.of_family("sam2"))
    except UnknownModel:
        if model_id:
            raise
        return catalog.get()


def _check_size(size: tuple[int, int], masks: int) -> None:
    height, width = size
    if height * width * masks > MAX_NUMBERS:
        expected = f"an image whose masks have at most {MAX_NUMBERS} pixels together (at /score it may be larger)"
        raise BadInput("image", expected, f"{width} x {height}, {masks} masks")


def _scaled(text: str | None, column: str, size: tuple[int, int]) -> Any:
    """Parse coordinates x, y, x, y, ...; if `size` (height, width) is not (1, 1) they are fractions of it."""
    value = parse_cell(column, text, "JSON of numbers")
    if value is None or size == (1, 1):
        return value
    height, width = size

    def scale(part: Any) -> Any:
        if isinstance(part, list) and part and isinstance(part[0], list):
            return [scale(item) for item in part]
        if not isinstance(part, list) or not all(isinstance(number, (int, float)) for number in part):
            raise BadInput(column, "numbers", kind(part))
        return [number * (height if i % 2 else width) for i, number in enumerate(part)]

    return scale(value)


def _logits(text: str | None) -> Any:
    """Parse (1, height, width) logits; a further leading axis of length 1, as some clients send it, is dropped."""
    value = parse_cell("mask_input", text, MASK_FORM)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and nesting_depth(value) > 3:
        value = value[0]
    return value


def _full_masks(engine: Engine, segmentation: Segmentation, as_logits: bool) -> np.ndarray:
    """Return (m, height, width) masks of the image's size: logits, or true and false."""
    if as_logits:
        logits: np.ndarray = engine.full_logits(segmentation).cpu().numpy()
        return logits
    return engine.masks(segmentation)
