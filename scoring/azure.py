"""Azure ML's folders and request bodies, for the endpoint's Azure dialect and for the entry scripts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.errors import BadModel, BadRequest, kind
from sam_endpoint.scoring import json_text
from sam_endpoint.scoring.tables import check_params, read_table

INPUT_FORM = '{"input_data": {"columns": [...], "index": [...], "data": [[...], ...]}, "params": {...}}'


def model_folder() -> str:
    """Return the folder of the deployed MLflow model.

    Azure ML mounts the model at the folder in the environment variable `AZUREML_MODEL_DIR`, or in a subfolder of it. If
    several folders contain an `MLmodel` file, the one nearest to `AZUREML_MODEL_DIR` is returned.

    Raises:
        BadModel: no folder there contains an `MLmodel` file.
    """
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    files = sorted(folder.rglob("MLmodel"), key=lambda path: len(path.parts))
    if not files:
        raise BadModel(f"no MLmodel file in AZUREML_MODEL_DIR={folder} or its subfolders")
    return str(files[0].parent)


def read_request(body: str | bytes, limits: RequestLimits = NO_LIMITS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Parse the body of a request in Azure ML's format.

    Args:
        body: JSON text, an object with `input_data` and optionally `params`. `input_data` has one of the forms that
            `read_table` accepts.
        limits: maximum number of rows.

    Returns:
        The table of rows, and the params by name.

    Raises:
        BadRequest: the body has another form, or more rows than the limits allow.
        BadInput: two columns have the same name, or a column name is misspelt.
        BadParameter: a param has an unknown name.

    Example:
        >>> table, params = read_request('{"input_data": [{"image": "a.png"}], "params": {"mask_encoding": "rle"}}')
        >>> table["image"].tolist(), params
        (['a.png'], {'mask_encoding': 'rle'})
    """
    payload = json_text.parse(body.encode() if isinstance(body, str) else body, f"a JSON body {INPUT_FORM}")
    if not isinstance(payload, dict) or "input_data" not in payload:
        raise BadRequest(f"expected {INPUT_FORM}, got {kind(payload)} without input_data")
    params = check_params(payload.get("params"))
    return read_table(payload["input_data"], "input_data", limits), params


def to_records(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert a table of answers to a list with a dict for each row, as Azure's clients expect."""
    return [dict(zip(answers.columns, row, strict=True)) for row in answers.to_numpy().tolist()]
