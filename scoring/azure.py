"""Azure ML's conventions, shared by the endpoint's dialect and the entry scripts."""

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
    """Return the folder of the MLflow model in `AZUREML_MODEL_DIR`, or in a folder below it. Raises BadModel."""
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    files = sorted(folder.rglob("MLmodel"), key=lambda path: len(path.parts))
    if not files:
        raise BadModel(f"no MLmodel file in AZUREML_MODEL_DIR={folder} or below it")
    return str(files[0].parent)


def read_request(body: str | bytes, limits: RequestLimits = NO_LIMITS) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table and the params of a request body.

    `input_data` is split-oriented (`columns`, `data`, optionally `index`), a list of records, or
    `{"column": [values]}`. Raises BadRequest for every other form and for more rows than the limits allow, and
    BadParameter for an unknown param.
    """
    payload = json_text.parse(body.encode() if isinstance(body, str) else body, f"a JSON body {INPUT_FORM}")
    if not isinstance(payload, dict) or "input_data" not in payload:
        raise BadRequest(f"expected {INPUT_FORM}, got {kind(payload)} without input_data")
    params = check_params(payload.get("params"))
    return read_table(payload["input_data"], "input_data", limits), params


def to_records(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the answers as Azure's clients read them."""
    return [dict(zip(answers.columns, row, strict=True)) for row in answers.to_numpy().tolist()]
