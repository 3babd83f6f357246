"""One module or package per client family, behind the interface `base.Dialect`."""

from __future__ import annotations

from starlette.responses import Response

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects import (
    azureml,
    cvat,
    label_studio,
    livepeer,
    mlflow,
    open_inference,
    roboflow,
    xanylabeling,
)
from sam_endpoint.scoring.online.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (
    azureml.DIALECT,
    roboflow.SAM,
    roboflow.SAM2,
    livepeer.DIALECT,
    cvat.DIALECT,
    label_studio.DIALECT,
    open_inference.DIALECT,
    xanylabeling.DIALECT,
    mlflow.DIALECT,
)


def dialect_of(path: str) -> Dialect:
    """Return the dialect that a path belongs to; MLflow's for all paths that no other dialect owns."""
    return next((dialect for dialect in DIALECTS if dialect.owns(path)), mlflow.DIALECT)


def respond(path: str, problem: Problem) -> Response:
    """Return an error response in the shape of the path's dialect."""
    return dialect_of(path).shape(problem)
