"""Azure ML's dialect: `/score` accepts `{"input_data": table, "params": {...}}` and returns a list of rows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint.scoring.azure import read_request, to_records
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG

router = APIRouter(tags=["Azure ML"])
MODEL_HELP = "Name of a served model, as `/models` lists them. Without it, the default model answers."

EXAMPLE: dict[str, Any] = {
    "input_data": {
        "columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
        "index": [0],
        "data": [[EXAMPLE_PNG, "", "[[30, 14, 66, 50]]", "", False]],
    },
    "params": {"mask_encoding": "rle"},
}


@router.post(
    "/score",
    summary="Segment the images of a table",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def score(request: Request, model: Annotated[str | None, Query(description=MODEL_HELP)] = None) -> Response:
    """Accept the requests of an Azure ML managed online endpoint.

    `input_data` is a table with one row for each image, in one of three forms: `{"columns": [...], "data": [[...]]}`, a
    list of records, or `{"column": [values]}`. Columns: `image` (base64 text or a URL), `input_points`, `input_labels`,
    `input_boxes`, `multimask_output`, `image_id`, `mask_input`. Coordinates are in pixels. The optional key `params`
    holds parameters such as `mask_encoding`.

    The response is a list with one object for each row: `{"predictions": [...], "image_id": ..., "error": null}`. There
    is one prediction for each prompt. A row without prompts returns one prediction for each object in its image.
    """
    catalog, context = request.app.state.catalog, context_of(request.scope)

    def answer() -> Response:
        served = catalog.get(model)
        with context.call.stage("parse"):
            table, params = read_request(context.body, served.limits)
        frame = served.scorer(context).score_frame(table, served.defaults.read(params), context.call)
        with context.call.stage("render"):
            return ChunkedJsonResponse(to_records(frame), headers=served.headers)

    return await run_in_threadpool(answer)


def error_response(problem: Problem) -> JSONResponse:
    """Return an error in the format of Azure ML: `{"error": {"message": ...}}`."""
    return JSONResponse({"error": {"message": problem.message}}, problem.status)


DIALECT = Dialect("azureml", ("/score",), router, error_response)
