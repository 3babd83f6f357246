"""The client dialects: one module or package for each client family, behind the interface `base.Dialect`.

A dialect is the set of routes, request formats and error formats that the clients of one system use.
"""

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
    samapi,
    tracking,
    video_frames,
    xanylabeling,
    xanylabeling_video,
)
from sam_endpoint.scoring.online.dialects.base import Dialect

DIALECTS: tuple[Dialect, ...] = (
    azureml.DIALECT,
    samapi.DIALECT,  # before Roboflow's paths, which begin with /sam/ too
    roboflow.SAM,
    roboflow.SAM2,
    roboflow.SAM3,
    livepeer.DIALECT,
    cvat.DIALECT,
    label_studio.DIALECT,
    open_inference.DIALECT,
    xanylabeling_video.DIALECT,
    xanylabeling.DIALECT,
    tracking.DIALECT,
    video_frames.DIALECT,
    mlflow.DIALECT,
)


def dialect_of(path: str) -> Dialect:
    """Return the dialect that owns a path, or MLflow's dialect if no dialect owns the path.

    Args:
        path: path of a request's URL.

    Example:
        >>> dialect_of("/sam2/segment_image").name, dialect_of("/models").name
        ('roboflow-sam2', 'mlflow')
    """
    return next((dialect for dialect in DIALECTS if dialect.owns(path)), mlflow.DIALECT)


def respond(path: str, problem: Problem) -> Response:
    """Return an error response in the format of the dialect that owns the path.

    Args:
        path: path of the request's URL.
        problem: status, code and message of the error.
    """
    return dialect_of(path).error_response(problem)
