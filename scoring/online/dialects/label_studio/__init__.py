"""Label Studio's dialect: the endpoint as an ML backend of Label Studio's projects."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.label_studio import routes


def error_response(problem: Problem) -> JSONResponse:
    """Return the response of an error in Label Studio's form."""
    return JSONResponse({"error": problem.message}, problem.status)


DIALECT = Dialect("label-studio", ("/setup", "/predict", "/webhook", "/embed_tasks"), routes.router, error_response)
