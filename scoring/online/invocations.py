"""MLflow's own dialect, `/invocations`: read, scored and written by MLflow's scoring server.

What is added: errors without stack traces and without the request's data, and limits for tables that MLflow would make
larger than the body they come from: of records with different keys, a column each, and of Parquet that repeats itself.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastapi import APIRouter, Request
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from scoring.online import sample
from scoring.online.azureml import BadRequest

router = APIRouter(tags=["MLflow"])
LONGEST = 1000
SMALL = 8192  # bytes of a body that can do no harm
MOST_COLUMNS = 1000
MOST_ROWS = 1_000_000  # of a Parquet file
MOST_TEXT = 2**30  # bytes of it, once what it repeats is written out
TEXTS = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
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
        if "parquet" in kind:
            _check_parquet(body)
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


def _check_parquet(body: bytes) -> None:
    """Raises BadRequest for a file that says the same text so often, in few bytes, that memory would not hold it.

    Lists are not counted: pyarrow ends the process where it is asked for a column's own metadata and that is broken.
    """
    try:
        schema = pq.read_schema(pa.BufferReader(body))
        if len(set(schema.names)) < len(schema.names):
            raise BadRequest("expected a Parquet file of columns with different names, got the same one twice")
        if any(pa.types.is_nested(kind) and ("string" in str(kind) or "binary" in str(kind)) for kind in schema.types):
            raise BadRequest("expected a Parquet file of text and of lists of numbers, got text within lists")
        texts = [field.name for field in schema if field.type in TEXTS]
        file = pq.ParquetFile(pa.BufferReader(body), read_dictionary=texts)
        if file.metadata.num_rows > MOST_ROWS:
            raise BadRequest(f"expected a Parquet file of at most {MOST_ROWS:,} rows, got {file.metadata.num_rows:,}")
        text = 0
        for batch in file.iter_batches(columns=texts):
            for column in batch.columns:
                text += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
            if text > MOST_TEXT:
                raise BadRequest(f"expected a Parquet file of at most {MOST_TEXT:,} bytes of text, got more")
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # what a broken file is to pyarrow
        return  # MLflow says what is wrong with it


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
