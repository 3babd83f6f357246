"""MLflow's dialect, `/invocations`: read and written by MLflow's scoring server, scored by the Engine.

Added are limits for tables that MLflow would make larger than the body they come from (records with different keys,
Parquet), and error messages without stack traces and without the request's data.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pandas as pd
from fastapi import APIRouter, Request
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel, scoring_server
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint.model.errors import BadRequest, EndpointError
from sam_endpoint.model.mlflow.pyfunc import score_for_mlflow
from sam_endpoint.model.mlflow.signature import signature
from sam_endpoint.model.params import Params
from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online import parquet, sample
from sam_endpoint.scoring.online.catalog import ServedModel
from sam_endpoint.scoring.online.context import RequestContext, context_of
from sam_endpoint.scoring.online.dialects.base import Dialect

router = APIRouter(tags=["MLflow"])
MAX_MESSAGE = 1000  # characters
SMALL_BODY = 8192  # bytes of a body that cannot become a large table
MAX_COLUMNS = 1000
EXAMPLE = {
    "dataframe_records": [{"image": sample.PICTURE, "input_boxes": [[30, 14, 66, 50]], "multimask_output": False}],
    "params": {"mask_encoding": "rle"},
}


class MlflowRejection(EndpointError):
    """MLflow or the model rejected the request, with MLflow's status and error code."""

    def __init__(self, error: MlflowException) -> None:
        super().__init__(_without_data(error.message))
        self.status = error.get_http_status_code()
        self.code = error.error_code


class ServedPyFunc:
    """A served model with the `predict` method that MLflow's scoring server calls, for one request."""

    def __init__(self, served: ServedModel, context: RequestContext) -> None:
        self.served, self.context = served, context

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the answers to a table. Raises MlflowException."""
        scorer, defaults = self.served.scorer(self.context), self.served.defaults
        return score_for_mlflow(scorer, data, defaults, params, self.context.call)


@router.post(
    "/invocations",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def invocations(request: Request) -> Response:
    """Score a table as `mlflow models serve` does.

    The body is JSON (`dataframe_records`, `dataframe_split`, `instances`, `inputs`), CSV or Parquet.
    """
    served, context = request.app.state.catalog.get(), context_of(request.scope)
    kind = request.headers.get("content-type", "application/json")

    def answer() -> Any:
        body = context.body
        if len(body) > SMALL_BODY and kind.startswith("application/json"):
            _check_columns(body)
        if "parquet" in kind and (reason := parquet.check(body)):
            raise BadRequest(reason)
        described = _described(tuple(served.defaults.packaged.items()))
        model = PyFuncModel(described, ServedPyFunc(served, context))
        try:
            return scoring_server.invocations(body, kind, model, described.get_input_schema())
        except MlflowException as error:
            raise MlflowRejection(error) from None

    result = await run_in_threadpool(answer)
    return Response(result.response, result.status, media_type=result.mimetype)


@lru_cache(16)
def _described(packaged: tuple[tuple[str, Any], ...]) -> Model:
    """Return MLflow's description of a model with these default params."""
    return Model(signature=signature(Params.read(dict(packaged))))


def _check_columns(body: bytes) -> None:
    """Raise BadRequest for records with too many different keys."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return  # MLflow reports what is wrong with it
    for name in ("dataframe_records", "instances"):
        records = payload.get(name) if isinstance(payload, dict) else None
        if isinstance(records, list):
            columns = {key for record in records if isinstance(record, dict) for key in record}
            if len(columns) > MAX_COLUMNS:
                raise BadRequest(f"{name}: expected at most {MAX_COLUMNS:,} different keys, got {len(columns):,}")


def shape(problem: Problem) -> JSONResponse:
    """Return an error as MLflow's clients read it."""
    return JSONResponse({"error_code": problem.code, "message": problem.message}, problem.status)


DIALECT = Dialect("mlflow", ("/invocations",), router, shape)


def _without_data(message: str) -> str:
    """Return MLflow's message without the request's data, which it puts before or after the reason."""
    message = message.split("\nInput:")[0]
    if message.startswith("Failed to predict data"):
        message = message.rpartition("Error: ")[2]
    return message[:MAX_MESSAGE]
