"""The Open Inference Protocol of Triton's and KServe's clients: REST routes, and a gRPC server that calls them."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.open_inference import rest


def error_response(problem: Problem) -> JSONResponse:
    """Return the response of an error in the protocol's form."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect(
    "open-inference",
    ("/v2",),
    rest.router,
    error_response,
    content_types=("application/json", "application/octet-stream"),
)
