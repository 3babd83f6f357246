"""Livepeer's dialect: a multipart form in, three JSON texts out, the best mask first."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import JSONResponse

from model import prompts
from model.errors import BadInput, kind
from model.segmenter import Segmentation, Segmenter
from scoring.online.catalog import Catalog, Served, UnknownModel

MOST_NUMBERS = 50_000_000  # of masks, which are written as text, one by one
router = APIRouter(tags=["Livepeer"])
FIELDS = {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"}


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
) -> JSONResponse:
    """Masks of one prompt on one picture, with scores and low-resolution logits, by falling score."""
    began = time.perf_counter()
    try:
        served = _served(request.app.state.catalog, model_id)
    except UnknownModel as error:
        return refuse(400, str(error))
    scorer = served.scorer
    kept = scorer.keep(image.file.read())
    size = (1, 1) if normalize_coords else kept.embedding.size
    asked = prompts.read(
        _scaled(point_coords, "point_coords", size),
        point_labels,
        _scaled(box, "box", size),
        _logits(mask_input),
        scorer.max_prompts,
    )
    if len(asked) > 1:
        raise BadInput("point_coords", "one prompt: (points, 2) and one box", f"{len(asked)} prompts")
    if not asked:
        asked = [prompts.NOTHING]
    scorer.check(asked)
    height, width = kept.embedding.size
    if height * width * (3 if multimask_output else 1) > MOST_NUMBERS:
        expected = f"an image whose masks have at most {MOST_NUMBERS} pixels together (at /score it may be larger)"
        raise BadInput("image", expected, f"{width} x {height}, {3 if multimask_output else 1} masks")
    (found,) = scorer.segment(kept, asked, multimask_output)
    order = np.argsort(-found.scores, kind="stable")
    with scorer.watch("render"):
        full = _full(scorer.segmenter, found, return_logits)
        answer = {
            "masks": json.dumps(full[order].tolist()),
            "scores": json.dumps(found.scores[order].tolist()),
            "logits": json.dumps(found.logits.float().cpu().numpy()[order].tolist()),
        }
    milliseconds = f"{1000 * (time.perf_counter() - began):.0f}"
    return JSONResponse(answer, headers={"x-answered-by": served.name, "x-milliseconds": milliseconds})


def _served(catalog: Catalog, model_id: str) -> Served:
    """The model of that name; without one a SAM 2, as the route says, or the default where there is none."""
    try:
        return catalog.get(model_id or catalog.of_family("sam2"))
    except UnknownModel:
        if model_id:
            raise
        return catalog.get()


def refuse(status: int, message: str) -> JSONResponse:
    """An error as Livepeer's clients read it."""
    return JSONResponse({"detail": {"msg": message}}, status)


def _scaled(text: str | None, column: str, size: tuple[int, int]) -> Any:
    """Coordinates x, y, x, y, ... as nested lists in pixels; `size`: (height, width) of what they are shares of."""
    value = prompts.parse(column, text, "JSON of numbers")
    if value is None or size == (1, 1):
        return value
    height, width = size

    def scaled(part: Any) -> Any:
        if isinstance(part, list) and part and isinstance(part[0], list):
            return [scaled(one) for one in part]
        if not isinstance(part, list) or not all(isinstance(number, (int, float)) for number in part):
            raise BadInput(column, "numbers", kind(part))
        return [number * (height if i % 2 else width) for i, number in enumerate(part)]

    return scaled(value)


def _logits(text: str | None) -> Any:
    """(1, height, width) logits; a further leading 1, as some clients send it, is taken off."""
    value = prompts.parse("mask_input", text, prompts.MASK_FORM)
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) and prompts.depth(value) > 3:
        value = value[0]
    return value


def _full(segmenter: Segmenter, found: Segmentation, logits: bool) -> np.ndarray:
    """(m, h, w) masks of the image's size: logits, or true and false."""
    return segmenter.full(found).cpu().numpy() if logits else segmenter.masks(found)
