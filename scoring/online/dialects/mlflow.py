"""MLflow's dialect: `/invocations`, with the request and response formats of MLflow's scoring server.

This module parses the bodies itself. MLflow's own parser quotes request data in its error messages and drops unknown
columns.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from fastapi import APIRouter, Request
from mlflow.pyfunc import scoring_server
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint.model.budget import RequestLimits
from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadRequest, kind
from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.azure import to_records
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online import parquet
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.base import ChunkedJsonResponse, Dialect
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from sam_endpoint.scoring.tables import check_params, read_csv, read_parquet, read_table

router = APIRouter(tags=["MLflow"])
FORMS = (scoring_server.DF_SPLIT, scoring_server.DF_RECORDS, scoring_server.INSTANCES, scoring_server.INPUTS)
JSON_FORM = f"a JSON object with a table under one of {', '.join(FORMS)}, and optionally params"
EXAMPLE = {
    "dataframe_records": [{"image": EXAMPLE_PNG, "input_boxes": [[30, 14, 66, 50]], "multimask_output": False}],
    "params": {"mask_encoding": "rle"},
}


class UnsupportedContent(BadRequest):
    """The content type of a request is not one that MLflow's scoring server accepts."""

    status = 415


@router.post(
    "/invocations",
    summary="Segment the images of a table",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def invocations(request: Request) -> Response:
    """Accept the requests of `mlflow models serve`.

    The body is a table with one row for each image. Columns: `image` (base64 text or a URL), `input_points`,
    `input_labels`, `input_boxes`, `multimask_output`, `image_id`, `mask_input`, `input_text`, `input_exemplars`,
    `input_exemplar_labels`, `input_exemplar_image`. Coordinates are in pixels.

    - `application/json`: the table is under one of the keys `dataframe_records`, `dataframe_split`, `instances` and
      `inputs`. The optional key `params` holds parameters such as `mask_encoding`.
    - `text/csv` and `application/vnd.apache.parquet`: the body is the table.

    The response is `{"predictions": [row, ...]}` with one object for each row of the table: `{"predictions": [...],
    "image_id": ..., "error": null}`. There is one prediction for each prompt. A row without prompts returns one
    prediction for each object in its image.
    """
    served, context = request.app.state.catalog.get(), context_of(request.scope)
    content_type = request.headers.get("content-type", scoring_server.CONTENT_TYPE_JSON)

    def answer() -> Response:
        table, params = _read(context.body, content_type, served.limits, context.call)
        frame = served.scorer(context).score_frame(table, served.defaults.read(params), context.call)
        with context.call.stage("render"):
            return ChunkedJsonResponse({"predictions": to_records(frame)}, headers=served.headers)

    return await run_in_threadpool(answer)


def _read(body: bytes, content_type: str, limits: RequestLimits, call: Call) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table and the params of a request body.

    Raises:
        BadRequest: the content type or the form of the body is not supported, or the table exceeds the limits.
        BadInput: a column has a wrong name.
        BadParameter: a parameter is unknown.
    """
    media_type, *options = (part.strip().lower() for part in content_type.split(";"))
    if options not in ([], ["charset=utf-8"], ['charset="utf-8"']):
        raise UnsupportedContent("content-type: expected no parameter other than charset=utf-8, got another")
    if media_type == scoring_server.CONTENT_TYPE_PARQUET:
        parquet.check(body, limits.rows, call)
    with call.stage("parse"):
        if media_type == scoring_server.CONTENT_TYPE_JSON:
            return _read_json(body, limits)
        if media_type == scoring_server.CONTENT_TYPE_CSV:
            return read_csv(body, limits), {}
        if media_type == scoring_server.CONTENT_TYPE_PARQUET:
            return read_parquet(body), {}
    raise UnsupportedContent(f"content-type: expected one of {', '.join(scoring_server.CONTENT_TYPES)}, got another")


def _read_json(body: bytes, limits: RequestLimits) -> tuple[pd.DataFrame, dict[str, Any]]:
    payload = json_text.parse(body, JSON_FORM)
    if not isinstance(payload, dict):
        raise BadRequest(f"expected {JSON_FORM}, got {kind(payload)}")
    present = [name for name in FORMS if name in payload]
    if len(present) != 1:
        came = f"{' and '.join(present)} together" if present else f"{kind(payload)} and none of these names"
        raise BadRequest(f"expected {JSON_FORM}, got {came}")
    return read_table(payload[present[0]], present[0], limits), check_params(payload.get("params"))


def error_response(problem: Problem) -> JSONResponse:
    """Return an error in the format of MLflow: `{"error_code": ..., "message": ...}`."""
    return JSONResponse({"error_code": problem.code, "message": problem.message}, problem.status)


DIALECT = Dialect(
    "mlflow", ("/invocations",), router, error_response, content_types=tuple(scoring_server.CONTENT_TYPES)
)
