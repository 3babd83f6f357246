"""Livepeer's dialect, that is, the requests and responses of Livepeer's API.

`/segment-anything-2` accepts a multipart form. It returns a JSON object with three strings. Each string is the JSON
text of an array.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
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
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.served_model import ServedModel

MAX_NUMBERS = 50_000_000  # pixels in all masks of one response together; the JSON text has a number for each pixel
CHUNK_BYTES = 2**16  # part of a form that is parsed between two checks of the deadline
ROWS_PER_CHUNK = 16  # rows of a mask in one chunk of the response
FULL_BYTES = 8  # memory per pixel of a mask while it is upscaled


class _FormParser(MultiPartParser):
    """Keeps all parts of a form in memory, where its body is already; a disk could be full or read-only."""

    spool_max_size = sys.maxsize


class _FormRoute(APIRoute):
    """A route that parses its form in a thread, without temporary files.

    FastAPI would parse the form in the event loop, where some forms of 30 MB block all other requests for 6 s.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, preceded by a step that parses the form."""
        handle = super().get_route_handler()

        async def parse_and_handle(request: Request) -> Response:
            context = context_of(request.scope)

            def parse() -> FormData:
                with context.call.stage("parse"):
                    # The parser is a coroutine, so it needs an event loop: one of this thread.
                    return asyncio.run(_FormParser(request.headers, _chunks(context.body, context.call)).parse())

            if "boundary=" in request.headers.get("content-type", ""):
                try:
                    # `Request.form` returns this attribute if it is set.
                    request._form = await run_in_threadpool(parse)
                except MultiPartException:
                    raise HTTPException(400) from None
            return await handle(request)

        return parse_and_handle


async def _chunks(body: bytes, call: Call) -> AsyncGenerator[bytes]:
    """Yield a body in chunks. Raise an exception between two chunks if the request is over (see `Call.check`)."""
    for start in range(0, len(body), CHUNK_BYTES):
        call.check()
        yield body[start : start + CHUNK_BYTES]


router = APIRouter(tags=["Livepeer"], route_class=_FormRoute)

MODEL_HELP = (
    "Name of a served model; `/models` lists the names. If empty, the endpoint uses a SAM 2 model. If it serves no "
    "SAM 2 model, it uses the default model."
)
LABELS_HELP = "JSON: one label for each point. 1: the point is on the object; 0: it is not."
MASK_INPUT_HELP = "JSON: logits of one mask of an earlier response, 1 x h x w."
COORDINATES_HELP = "true: coordinates are in pixels; false: coordinates are fractions of the width and height, 0 to 1"


@router.post("/segment-anything-2", summary="Segment an image with one prompt")
def segment(
    request: Request,
    image: Annotated[UploadFile, File(description="The image file.")],
    model_id: Annotated[str, Form(description=MODEL_HELP)] = "",
    point_coords: Annotated[str | None, Form(description="JSON: points [[x, y], ...]", examples=["[[48, 32]]"])] = None,
    point_labels: Annotated[str | None, Form(description=LABELS_HELP, examples=["[1]"])] = None,
    box: Annotated[str | None, Form(description="JSON: [x1, y1, x2, y2]", examples=["[30, 14, 66, 50]"])] = None,
    mask_input: Annotated[str | None, Form(description=MASK_INPUT_HELP)] = None,
    multimask_output: Annotated[bool, Form(description="true: return three masks; false: return one mask")] = True,
    return_logits: Annotated[bool, Form(description="true: masks of logits; false: masks of true/false")] = True,
    normalize_coords: Annotated[bool, Form(description=COORDINATES_HELP)] = True,
    safety_check: Annotated[bool, Form(description="Accepted and ignored.", include_in_schema=False)] = True,
) -> Response:
    """Return the masks of one prompt, the mask with the highest score first.

    The response has three strings. Each string is the JSON text of an array: `masks` (masks x height x width), `scores`
    (the predicted IoU of each mask), and `logits` (masks x h x w, the low-resolution logits). `mask_input` accepts the
    logits of one mask.
    """
    started = time.perf_counter()
    context = context_of(request.scope)
    try:
        served = _served_model(request.app.state.catalog, model_id)
    except UnknownModel as error:
        return error_response(Problem.of_status(400, str(error)))
    engine = served.engine_for(context)
    embedded = engine.embed(ImageRef.content(image.file.read()), context.call)
    size = (1, 1) if normalize_coords else embedded.size  # the factors from the request's coordinates to pixels
    prompts = parse_prompts(
        _parse_coordinates(point_coords, "point_coords", size),
        point_labels,
        _parse_coordinates(box, "box", size),
        _parse_logits(mask_input),
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
        _stream_response(engine, segmentation, order, logits, return_logits, context.call),
        media_type="application/json",
        headers={**served.headers, "x-milliseconds": milliseconds},
    )


def _stream_response(
    engine: Engine, segmentation: Segmentation, order: np.ndarray, logits: np.ndarray, as_logits: bool, call: Call
) -> Iterator[bytes]:
    """Yield the response in chunks: a JSON object with three strings, each the JSON text of an array.

    The response is streamed because the masks of a 12-megapixel image are a gigabyte of text. The texts hold only
    numbers, brackets and commas, so nothing in them needs JSON escapes.

    Args:
        engine: engine of the model.
        segmentation: masks of the prompt, in the model's order.
        order: indices of the masks, highest score first.
        logits: (masks, h, w) low-resolution logits in that order.
        as_logits: whether the full-size masks are logits instead of booleans.
        call: deadline, cancellation and memory budget of the request.
    """
    height, width = segmentation.size
    with call.hold(FULL_BYTES * height * width * len(order)):
        with call.stage("mask"):
            masks = _full_masks(engine, segmentation, as_logits)
        yield b'{"masks":"'
        yield from _stream_array(masks, order, call)
    yield b'","scores":"' + json.dumps(segmentation.scores[order].tolist()).encode() + b'","logits":"'
    yield from _stream_array(logits, np.arange(len(logits)), call)
    yield b'"}'


def _stream_array(maps: np.ndarray, order: np.ndarray, call: Call) -> Iterator[bytes]:
    """Yield the JSON text of an array (masks, height, width), with its masks in the order of the indices `order`."""
    before = b"[["
    for place in order:
        for start in range(0, maps.shape[1], ROWS_PER_CHUNK):
            with call.stage("render"):
                text = json.dumps(maps[place, start : start + ROWS_PER_CHUNK].tolist()).encode()
            yield before + text[1:-1]
            before = b", "
        before = b"], ["
    yield b"]]"


def error_response(problem: Problem) -> JSONResponse:
    """Return an error in the format of Livepeer: `{"detail": {"msg": ...}}`."""
    return JSONResponse({"detail": {"msg": problem.message}}, problem.status)


DIALECT = Dialect(
    "livepeer",
    ("/segment-anything-2",),
    router,
    error_response,
    {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"},
    ("multipart/form-data",),
)


def _served_model(catalog: Catalog, model_id: str) -> ServedModel:
    """Return the model of a name. Without a name, return a SAM 2 model, or the default model if there is none."""
    try:
        return catalog.get(model_id or catalog.name_for_family("sam2"))
    except UnknownModel:
        if model_id:
            raise
        return catalog.get()


def _check_size(size: tuple[int, int], masks: int) -> None:
    height, width = size
    if height * width * masks > MAX_NUMBERS:
        expected = f"an image whose masks have at most {MAX_NUMBERS} pixels together (/score accepts larger images)"
        raise BadInput("image", expected, f"{width} x {height}, {masks} masks")


def _parse_coordinates(text: str | None, column: str, size: tuple[int, int]) -> Any:
    """Parse the JSON text of coordinates x, y, x, y, ... and convert fractions of the image's size to pixels.

    Args:
        text: the form field, or None.
        column: name of the form field, for error messages.
        size: (height, width) of the image if the coordinates are fractions of it; (1, 1) if they are in pixels already.

    Returns:
        Nested lists of numbers in pixels, or None if the field is missing.

    Raises:
        BadInput: the text is not JSON, or holds something other than numbers.
    """
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


def _parse_logits(text: str | None) -> Any:
    """Parse the JSON text of (1, h, w) logits. Some clients send more leading axes of length 1, which are dropped."""
    value = parse_cell("mask_input", text, MASK_FORM)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and nesting_depth(value) > 3:
        value = value[0]
    return value


def _full_masks(engine: Engine, segmentation: Segmentation, as_logits: bool) -> np.ndarray:
    """Return the masks at the image's size: an array (masks, height, width) of float32 logits or of booleans."""
    if as_logits:
        logits: np.ndarray = engine.full_logits(segmentation).cpu().numpy()
        return logits
    return engine.masks(segmentation)
