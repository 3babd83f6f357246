"""REST routes of the Open Inference Protocol, with its binary extension."""

from __future__ import annotations

from typing import Any

import pandas as pd
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from sam_endpoint import __version__
from sam_endpoint.model.errors import BadRequest
from sam_endpoint.model.params import Params
from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.azure import to_records
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects.open_inference import tensors
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from sam_endpoint.scoring.online.served_model import ServedModel
from sam_endpoint.scoring.tables import check_params

HEADER_LENGTH = "inference-header-content-length"
PLATFORM = "segment-anything"
SERVER = {"name": "segment-anything-endpoint", "version": __version__, "extensions": ["binary_tensor_data"]}
# Parameters that the protocol defines. All other parameters of a request are `params` of the contract.
PROTOCOL_PARAMETERS = {"binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"}
EXAMPLE = {
    "inputs": [
        {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [EXAMPLE_PNG]},
        {"name": "input_boxes", "shape": [1, 1], "datatype": "BYTES", "data": ["[[30, 14, 66, 50]]"]},
        {"name": "multimask_output", "shape": [1, 1], "datatype": "BOOL", "data": [False]},
    ],
    "parameters": {"mask_encoding": "rle"},
}
router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
# If a function has two routes, the router tries the lower route first. The lower route must have the longer path,
# because `{model:path}` of the shorter path also matches the rest of the longer path.


@router.get("", summary="Describe the server")
async def server_metadata() -> dict[str, Any]:
    """Describe the server."""
    return SERVER


@router.get("/health/live", summary="Check that the process responds")
async def live() -> Response:
    """Return 200 as long as the process can respond."""
    return JSONResponse({"live": True})


@router.get("/health/ready", summary="Check that the warm models are loaded")
async def ready(request: Request) -> Response:
    """Return 200 if all warm models are loaded, and 503 before that."""
    is_ready = request.app.state.catalog.ready
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/models/{model:path}/ready", summary="Check that a model is served")
@router.get("/models/{model:path}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request, model: str) -> Response:
    """Return 200 if the model is served. The first request for a model loads the model, if it is not in memory."""
    request.app.state.catalog.key(model)
    return JSONResponse({"name": model, "ready": True})


@router.get("/models/{model:path}", summary="Describe a model")
@router.get("/models/{model:path}/versions/{version}", include_in_schema=False)
async def model_metadata(request: Request, model: str) -> dict[str, Any]:
    """Describe the inputs and outputs of a model: the columns of the table contract, and the predictions."""
    request.app.state.catalog.key(model)
    inputs = [{"name": name, "datatype": kind, "shape": [-1, 1]} for name, kind in tensors.DATATYPES.items()]
    outputs = [{"name": tensors.OUTPUT, "datatype": "BYTES", "shape": [-1, 1]}]
    return {"name": model, "versions": ["1"], "platform": PLATFORM, "inputs": inputs, "outputs": outputs}


@router.post(
    "/models/{model:path}/infer",
    summary="Score a table of tensors",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
@router.post("/models/{model:path}/versions/{version}/infer", include_in_schema=False)
async def infer(request: Request, model: str) -> Response:
    """Score a table whose columns are the input tensors. The output `predictions` has a JSON text for each row."""
    catalog, context = request.app.state.catalog, context_of(request.scope)
    header_length = _header_length(request.headers.get(HEADER_LENGTH))

    def answer() -> Response:
        served = catalog.get(model)
        with context.call.stage("parse"):
            table, params, answer_id, as_binary = _read(context.body, header_length, served)
        frame = served.scorer(context).score_frame(table, params, context.call)
        with context.call.stage("render"):
            rows = [json_text.dump(record) for record in to_records(frame)]
            body, length = tensors.respond_body(model, answer_id, rows, as_binary)
        headers = served.headers if length is None else {**served.headers, HEADER_LENGTH: str(length)}
        kind = "application/json" if length is None else "application/octet-stream"
        return Response(body, media_type=kind, headers=headers)

    return await run_in_threadpool(answer)


def _read(body: bytes, header_length: int | None, served: ServedModel) -> tuple[pd.DataFrame, Params, object, bool]:
    """Return the table and the params of a request, the id of its response, and whether the response is binary."""
    payload, binary = tensors.read_body(body, header_length)
    table = tensors.read_inputs(payload.get("inputs"), binary, served.limits)
    return table, served.defaults.read(_params(payload)), payload.get("id"), tensors.wants_binary(payload)


def _header_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal():
        raise BadRequest(f"{HEADER_LENGTH}: expected a whole number, got text of {len(text)} characters")
    return int(text[:20])


def _params(payload: dict[str, Any]) -> dict[str, Any]:
    parameters = payload.get("parameters")
    if isinstance(parameters, dict):
        parameters = {name: value for name, value in parameters.items() if name not in PROTOCOL_PARAMETERS}
    return check_params(parameters)
