"""Azure ML's dialect: `{"input_data": ..., "params": {...}}` in, a bare list of rows out."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint.scoring.azure import read_request, to_records
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online import sample
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import Dialect, JsonAnswer

router = APIRouter(tags=["Azure ML"])

EXAMPLE: dict[str, Any] = {
    "input_data": {
        "columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
        "index": [0],
        "data": [[sample.PICTURE, "", "[[30, 14, 66, 50]]", "", False]],
    },
    "params": {"mask_encoding": "rle"},
}


@router.post(
    "/score",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def score(request: Request, model: str | None = None) -> Response:
    """Score a table as a managed online endpoint does. `model` is a name of the catalog, by default its default."""
    catalog, context = request.app.state.catalog, context_of(request.scope)

    def answer() -> Response:
        served = catalog.get(model)
        with context.call.stage("parse"):
            table, params = read_request(context.body, served.limits)
        frame = served.scorer(context).score_frame(table, served.defaults.read(params), context.call)
        with context.call.stage("render"):
            return JsonAnswer(to_records(frame), headers=served.headers)

    return await run_in_threadpool(answer)


def shape(problem: Problem) -> JSONResponse:
    """Return an error as Azure's clients read it."""
    return JSONResponse({"error": {"message": problem.message}}, problem.status)


DIALECT = Dialect("azureml", ("/score",), router, shape)
