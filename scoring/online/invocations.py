"""MLflow's own dialect, `/invocations`: read, scored and written by MLflow's scoring server.

What is added: errors without stack traces and without the request's data, and limits for tables that MLflow would make
larger than the body they come from: of records with different keys, a column each, and of Parquet.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from scoring.online import parquet, sample
from scoring.online.azureml import BadRequest

router = APIRouter(tags=["MLflow"])
LONGEST = 1000
SMALL = 8192  # bytes of a body that can do no harm
MOST_COLUMNS = 1000
EXAMPLE = {
    "dataframe_records": [{"image": sample.PICTURE, "input_boxes": [[30, 14, 66, 50]], "multimask_output": False}],
    "params": {"mask_encoding": "rle"},
}


class Refused(Exception):
    """What MLflow or the model refused: HTTP status, MLflow's error code, and a message for who sent the request."""

    def __init__(self, error: MlflowException) -> None:
        super().__init__(_without_data(error.message))
        self.status: int = error.get_http_status_code()
        self.code: str = error.error_code


@router.post(
    "/invocations",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def invocations(request: Request) -> Response:
    """As `mlflow models serve` answers: JSON (`dataframe_records`, `dataframe_split`, `instances`, `inputs`), CSV or
    Parquet."""
    model, body = request.app.state.catalog.get().pyfunc, await request.body()
    kind = request.headers.get("content-type", "application/json")

    def answer() -> Any:
        if len(body) > SMALL and kind.startswith("application/json"):
            _check_columns(body)
        if "parquet" in kind and (wrong := parquet.check(body)):
            raise BadRequest(wrong)
        try:
            return scoring_server.invocations(body, kind, model, model.metadata.get_input_schema())
        except MlflowException as error:
            raise Refused(error) from None

    found = await run_in_threadpool(answer)
    return Response(found.response, found.status, media_type=found.mimetype)


def _check_columns(body: bytes) -> None:
    """Raises BadRequest for records of too many different keys."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return  # MLflow says what is wrong with it
    for name in ("dataframe_records", "instances"):
        records = payload.get(name) if isinstance(payload, dict) else None
        if isinstance(records, list):
            columns = {key for record in records if isinstance(record, dict) for key in record}
            if len(columns) > MOST_COLUMNS:
                raise BadRequest(f"{name}: expected at most {MOST_COLUMNS:,} different keys, got {len(columns):,}")


def refused(_: Request, error: Exception) -> JSONResponse:
    """An error as MLflow's clients read it."""
    assert isinstance(error, Refused)
    return JSONResponse({"error_code": error.code, "message": str(error)}, error.status)


def _without_data(message: str) -> str:
    """MLflow's message without the request's data, which it puts before or after what was wrong with it."""
    message = message.split("\nInput:")[0]
    if message.startswith("Failed to predict data"):
        message = message.rpartition("Error: ")[2]
    return message[:LONGEST]
