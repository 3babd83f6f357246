"""Roboflow Inference's dialect: its SAM and SAM 2 routes, and the cache of logits that they may start from."""

from __future__ import annotations

from starlette.responses import JSONResponse

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects.base import Dialect
from sam_endpoint.scoring.online.dialects.roboflow import sam, sam2


def shape(problem: Problem) -> JSONResponse:
    """Return an error as Roboflow's clients read it."""
    return JSONResponse({"message": problem.message}, problem.status)


FIELDS = {"input_points": "point_coords", "input_labels": "point_labels", "input_boxes": "box"}
SAM = Dialect("roboflow-sam", ("/sam/",), sam.router, shape, FIELDS)
SAM2 = Dialect("roboflow-sam2", ("/sam2/",), sam2.router, shape, FIELDS)
