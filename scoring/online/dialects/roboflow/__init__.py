"""Roboflow Inference's dialect: the routes `/sam/`, `/sam2/` and `/sam3/`, and a cache of logits."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.roboflow import sam, sam2, sam3


def error_response(problem: Problem) -> JSONResponse:
    """Return an error in the format of Roboflow Inference: `{"message": ...}`."""
    return JSONResponse({"message": problem.message}, problem.status)


FIELDS = {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"}
SAM = Dialect("roboflow-sam", ("/sam/",), sam.router, error_response, FIELDS)
SAM2 = Dialect("roboflow-sam2", ("/sam2/",), sam2.router, error_response, FIELDS)
SAM3 = Dialect(
    "roboflow-sam3",
    ("/sam3/",),
    sam3.router,
    error_response,
    FIELDS | {"input_text": "text", "input_exemplars": "boxes", "input_exemplar_labels": "box_labels"},
    invalid_status=422,
)
