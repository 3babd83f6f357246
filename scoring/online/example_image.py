"""The image in the examples that /docs shows: a disc on a plain background, 96 pixels wide and 64 high."""

from __future__ import annotations

from sam_endpoint.model.mlflow.package import input_example

EXAMPLE_PNG: str = input_example()["image"][0]  # base64
