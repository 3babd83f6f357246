"""The picture in the examples that /docs shows: a disc on a plain ground, 96 x 64 pixels."""

from __future__ import annotations

from sam_endpoint.model.mlflow.package import input_example

PICTURE: str = input_example()["image"][0]
