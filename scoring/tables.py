"""Tables and params of requests, in the forms that clients send; error messages hold nothing that a client wrote."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.errors import BadParameter, BadRequest, describe_name, kind
from sam_endpoint.model.params import PARAM_NAMES
from sam_endpoint.model.rows import COLUMNS, column_names

MAX_COLUMNS = 1000
CSV_FORM = f"a CSV body with a header of columns ({', '.join(COLUMNS)})"


def check_params(params: object) -> dict[str, Any]:
    """Return the params of a request.

    Raises:
        BadRequest: they are not an object.
        BadParameter: a name is unknown.
    """
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise BadRequest(f"params: expected an object of names and values, got {kind(params)}")
    for name in params:
        if name not in PARAM_NAMES:
            names = ", ".join(PARAM_NAMES)
            described = describe_name(name, PARAM_NAMES)
            raise BadParameter(f"unknown parameter {described}; the known parameters are {names}")
    return params


def read_table(value: object, place: str, limits: RequestLimits = NO_LIMITS) -> pd.DataFrame:
    """Read a table of a JSON body; columns that the contract does not know are left out.

    Args:
        value: split-oriented (`columns`, `data`, optionally `index`), a list of records, or `{"column": [values]}`.
            In the last form, values that are no lists are a single row.
        place: the field that holds the table, for messages.
        limits: how many rows there may be, checked before they are copied.

    Raises:
        BadRequest: the value has another form, or too many rows or columns.
        BadInput: two columns have the same name, or a prompt column is misspelt.
    """
    index = None
    if isinstance(value, dict) and "data" in value and "columns" in value:
        columns, index = _read_split(value, place, limits)
    elif isinstance(value, dict):
        columns = _read_columns(value, place, limits)
    elif isinstance(value, list) and all(isinstance(record, dict) for record in value):
        limits.check_rows(len(value))
        names = _known_names({name: None for record in value for name in record})
        columns = {known: [record.get(name) for record in value] for name, known in names.items()}
    else:
        raise BadRequest(f"{place}: expected columns and data, a list of records or lists by column, got {kind(value)}")
    # Object columns keep every value as it came: a null stays a null beside true and false.
    return pd.DataFrame(columns, index, dtype=object)


def _known_names(names: Iterable[object]) -> dict[Any, str]:
    """Map those of the names that spell a column of the contract to this column. Raises as `read_table` does."""
    names = list(names)
    if len(names) > MAX_COLUMNS:
        raise BadRequest(f"expected a table of at most {MAX_COLUMNS:,} columns, got {len(names):,}")
    return {name: str(column) for name, column in column_names(names).items() if column in COLUMNS}


def _read_split(
    value: Mapping[str, Any], place: str, limits: RequestLimits
) -> tuple[dict[str, list[Any]], list[int] | None]:
    columns, rows, index = value["columns"], value["data"], value.get("index")
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise BadRequest(f"{place}: expected columns and data to be lists")
    limits.check_rows(len(rows))
    if not all(isinstance(name, str) for name in columns):
        raise BadRequest(f"{place}: expected the names in columns to be text")
    for position, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(columns):
            shape = f"a list of {len(row)}" if isinstance(row, list) else kind(row)
            raise BadRequest(f"{place}: expected {len(columns)} values in data[{position}], one a column, got {shape}")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise BadRequest(f"{place}: expected {len(rows)} labels in index, one a row, got {kind(index)}")
    if index is not None and not all(isinstance(label, (str, int, float)) for label in index):
        raise BadRequest(f"{place}: expected the labels in index to be text or numbers")
    names = _known_names(columns)
    places = {name: i for i, name in enumerate(columns)}
    table = {known: [row[places[name]] for row in rows] for name, known in names.items()}
    # Text labels may be data, and messages name rows by their labels: rows are then counted.
    is_numeric = index is not None and all(type(label) is int and abs(label) < 10**15 for label in index)
    return table, index if is_numeric else None


def _read_columns(value: Mapping[str, Any], place: str, limits: RequestLimits) -> dict[str, list[Any]]:
    columns = {known: value[name] for name, known in _known_names(value).items()}
    if not isinstance(columns.get("image", columns.get("image_id", [])), list):
        columns = {name: [cell] for name, cell in columns.items()}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadRequest(f"{place}: expected a list of values under '{name}', got {kind(values)}")
        limits.check_rows(len(values))
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{len(values)} under '{name}'" for name, values in columns.items())
        raise BadRequest(f"{place}: expected lists of one length under all columns, got {lengths}")
    return columns


def read_csv(body: bytes, limits: RequestLimits = NO_LIMITS) -> pd.DataFrame:
    """Read a CSV body with a header.

    Raises:
        BadRequest: the body cannot be read, or has too many rows or columns. The message names the first wrong line
            if it is known.
        BadInput: two columns have the same name, or a prompt column is misspelt.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest(f"expected {CSV_FORM} in UTF-8, got {kind(body)} in another encoding") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        header = next(filter(None, csv.reader(io.StringIO(text))), [])
    except csv.Error:
        header = []
    names = _known_names(header)
    try:
        # One row more than allowed is read, so that a body of millions costs no more than that.
        table = pd.read_csv(io.StringIO(text), dtype=object, nrows=None if limits.rows is None else limits.rows + 1)
    except Exception:  # the parser's errors may repeat the text
        table = None
    # Where the first line has more fields than the header, pandas takes the first fields as the row's label.
    if table is None or not isinstance(table.index, pd.RangeIndex):
        raise BadRequest(f"expected {CSV_FORM}, got {kind(text)} that cannot be read as CSV{_csv_fault(text)}")
    limits.check_rows(len(table))
    return table[list(names)].rename(columns=names)


def _csv_fault(text: str) -> str:
    """Return what is wrong with the first line of a CSV text that does not fit its header, as the end of a message."""
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(filter(None, reader), [])
        for fields in reader:
            if len(fields) > len(header):
                quoting = "a field that holds commas must be in double quotes"
                return f": line {reader.line_num} has {len(fields)} fields, the header has {len(header)}; {quoting}"
    except csv.Error:
        return f": a quotation in line {reader.line_num} or before it is wrong or does not end"
    return ""


def read_parquet(body: bytes) -> pd.DataFrame:
    """Read a Parquet body.

    Raises:
        BadRequest: the body cannot be read.
        BadInput: two columns have the same name, or a prompt column is misspelt.
    """
    try:
        table = pd.read_parquet(io.BytesIO(body))
    except Exception:  # pyarrow's errors may repeat names and values
        raise BadRequest(f"expected a Parquet file, got {kind(body)} that cannot be read as one") from None
    names = _known_names(table.columns)
    return table.reset_index(drop=True)[list(names)].rename(columns=names)
