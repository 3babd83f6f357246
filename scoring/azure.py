"""Azure ML's conventions, shared by the endpoint's dialect and the entry scripts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from sam_endpoint.model.errors import BadModel, BadRequest, kind
from sam_endpoint.model.rows import COLUMNS

INPUT_FORM = '{"input_data": {"columns": [...], "index": [...], "data": [[...], ...]}, "params": {...}}'


def model_folder() -> str:
    """Return the folder of the MLflow model in `AZUREML_MODEL_DIR`, or in a folder below it. Raises BadModel."""
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    files = sorted(folder.rglob("MLmodel"), key=lambda path: len(path.parts))
    if not files:
        raise BadModel(f"no MLmodel file in AZUREML_MODEL_DIR={folder} or below it")
    return str(files[0].parent)


def read_request(body: str | bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table and the params of a request body.

    `input_data` is split-oriented (`columns`, `data`, optionally `index`), a list of records, or
    `{"column": [values]}`. Raises BadRequest for every other form.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest(f"expected a JSON body {INPUT_FORM}, got {kind(body)} that is not JSON") from None
    if not isinstance(payload, dict) or "input_data" not in payload:
        raise BadRequest(f"expected {INPUT_FORM}, got {kind(payload)} without input_data")
    params = payload.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise BadRequest(f"params: expected an object of names and values, got {kind(params)}")
    return _read_table(payload["input_data"]), params


def _read_table(data: Any) -> pd.DataFrame:
    if isinstance(data, dict) and "data" in data and "columns" in data:
        columns, rows, index = data["columns"], data["data"], data.get("index")
        if not isinstance(columns, list) or not isinstance(rows, list):
            raise BadRequest("input_data: expected columns and data to be lists")
        if not all(isinstance(name, str) for name in columns):
            raise BadRequest("input_data: expected the names in columns to be text")
        for position, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(columns):
                raise BadRequest(
                    f"input_data: expected {len(columns)} values in data[{position}], one a column, got {kind(row)}"
                )
        if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
            raise BadRequest(f"input_data: expected {len(rows)} labels in index, one a row, got {kind(index)}")
        if index is not None and not all(isinstance(label, (str, int, float)) for label in index):
            raise BadRequest("input_data: expected the labels in index to be text or numbers")
        records: dict[str, list[Any]] = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    elif isinstance(data, dict):
        for name, values in data.items():
            if not isinstance(values, list):
                raise BadRequest(f"input_data: expected a list of values under '{name}', got {kind(values)}")
        if len({len(values) for values in data.values()}) > 1:
            raise BadRequest("input_data: expected lists of one length under all columns")
        records, index = data, None
    elif isinstance(data, list) and all(isinstance(record, dict) for record in data):
        names = [name for name in COLUMNS if any(name in record for record in data)]
        records, index = {name: [record.get(name) for record in data] for name in names}, None
    else:
        raise BadRequest(
            f"input_data: expected columns and data, a list of records or lists by column, got {kind(data)}"
        )
    records = {name: records[name] for name in COLUMNS if name in records}  # other columns are ignored
    # Object columns keep every value as it came: a null stays a null beside true and false.
    return pd.DataFrame(records, index, dtype=object)


def to_records(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the answers as Azure's clients read them."""
    return [dict(zip(answers.columns, row, strict=True)) for row in answers.to_numpy().tolist()]
