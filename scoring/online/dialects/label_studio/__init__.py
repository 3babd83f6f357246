"""Label Studio's dialect: the endpoint is an ML backend of its projects."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.label_studio import routes


def error_response(problem: Problem) -> JSONResponse:
    """Return an error as Label Studio reads it."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect("label-studio", ("/setup", "/predict", "/webhook", "/embed_tasks"), routes.router, error_response)
