"""Roboflow Inference's dialect: the routes `/sam/` and `/sam2/`, and the cache of logits for refining masks."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.roboflow import sam, sam2


def error_response(problem: Problem) -> JSONResponse:
    """Return an error in the format of Roboflow Inference: `{"message": ...}`."""
    return JSONResponse({"message": problem.message}, problem.status)


FIELDS = {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"}
SAM = Dialect("roboflow-sam", ("/sam/",), sam.router, error_response, FIELDS)
SAM2 = Dialect("roboflow-sam2", ("/sam2/",), sam2.router, error_response, FIELDS)
