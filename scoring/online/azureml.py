"""Azure ML's dialect: `{"input_data": ..., "params": {...}}` in, a bare list of rows out."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from model.contract import COLUMNS
from model.errors import kind
from scoring.online import sample

router = APIRouter(tags=["Azure ML"])
INPUT_FORM = '{"input_data": {"columns": [...], "index": [...], "data": [[...], ...]}, "params": {...}}'


class BadRequest(ValueError):
    """A request body that is not of Azure ML's form (HTTP 400)."""


def read(body: str | bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table and the params of a request body. `input_data` is split-oriented (`columns`, `data`, perhaps `index`),
    a list of records, or `{"column": [values]}`. Raises BadRequest."""
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
    records = {name: records[name] for name in COLUMNS if name in records}  # what is in others is looked at nowhere
    # Object columns keep every value as it came: a null stays a null beside true and false.
    return pd.DataFrame(records, index, dtype=object)


def render(answers: pd.DataFrame) -> list[dict[str, Any]]:
    """The answer's rows as Azure's clients read them."""
    return [dict(zip(answers.columns, row, strict=True)) for row in answers.to_numpy().tolist()]


EXAMPLE = {
    "input_data": {
        "columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
        "index": [0],
        "data": [[sample.PICTURE, "", "[[30, 14, 66, 50]]", "", False]],
    },
    "params": {"mask_encoding": "rle"},
}


@router.post(
    "/score",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {}, "example": EXAMPLE}}}},
)
async def score(request: Request, model: str | None = None) -> Response:
    """As a managed online endpoint answers. `model`: a name of the catalog; without it the default model."""
    catalog, body = request.app.state.catalog, await request.body()

    def answer() -> Response:
        table, params = read(body)
        chosen = catalog.get(model)
        answers = render(chosen.predict(table, params))
        return JSONResponse(answers, headers={"x-answered-by": chosen.name})

    return await run_in_threadpool(answer)


def refuse(status: int, message: str) -> JSONResponse:
    """An error as Azure's clients read it."""
    return JSONResponse({"error": {"message": message}}, status)
