"""Parse the tables and params in requests. Error messages never contain values from the request."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sam_endpoint.model.budget import NO_LIMITS, RequestLimits
from sam_endpoint.model.errors import BadParameter, BadRequest, describe_name, kind
from sam_endpoint.model.params import PARAM_NAMES
from sam_endpoint.model.rows import COLUMNS, column_names

MAX_COLUMNS = 1000
MAX_HEADER = 100_000  # characters of a CSV header; while it is split, no other thread runs
CSV_FORM = f"a CSV body with a header of columns ({', '.join(COLUMNS)})"


def check_params(params: object) -> dict[str, Any]:
    """Check the names of a request's params.

    Args:
        params: an object of names and values, or None. The values are checked later, by `Params.read`.

    Returns:
        The params; an empty dict for None.

    Raises:
        BadRequest: the params are not an object.
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
    """Convert a table in a JSON body to a data frame.

    Args:
        value: an object with `columns`, `data` and optionally `index` (pandas' split orientation); a list of records;
            or an object `{"column": [values]}`. In the last form, cells that are not lists make a single row.
        place: name of the field that holds the table, for error messages.
        limits: maximum number of rows, checked before the rows are copied.

    Returns:
        The columns that the request format defines (`COLUMNS`), with dtype object. Other columns are dropped.

    Raises:
        BadRequest: the value has another form, too many rows, or more than MAX_COLUMNS columns.
        BadInput: two columns have the same name, or a column name is misspelt.

    Example:
        >>> read_table({"columns": ["image", "shop"], "data": [["a.png", 7], ["b.png", 8]]}, "inputs")
           image
        0  a.png
        1  b.png
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
    # With dtype object, pandas changes no value: a null beside true and false stays a null.
    return pd.DataFrame(columns, index, dtype=object)


def _known_names(names: Iterable[object]) -> dict[Any, str]:
    """Map names to the columns that the request format defines, without other names. Raises as `read_table` does."""
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
            raise BadRequest(
                f"{place}: expected {len(columns)} values in data[{position}], one per column, got {shape}"
            )
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise BadRequest(f"{place}: expected {len(rows)} labels in index, one per row, got {kind(index)}")
    if index is not None and not all(isinstance(label, (str, int, float)) for label in index):
        raise BadRequest(f"{place}: expected the labels in index to be text or numbers")
    names = _known_names(columns)
    places = {name: i for i, name in enumerate(columns)}
    table = {known: [row[places[name]] for row in rows] for name, known in names.items()}
    # Error messages name rows by their labels. Text labels may be request data, so their rows get numbers instead.
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
        raise BadRequest(f"{place}: expected lists of the same length under all columns, got {lengths}")
    return columns


def read_csv(body: bytes, limits: RequestLimits = NO_LIMITS) -> pd.DataFrame:
    r"""Read a CSV body with a header.

    Args:
        body: UTF-8 text, with or without a byte-order mark.
        limits: maximum number of rows.

    Returns:
        The columns that the request format defines (`COLUMNS`), with dtype object. Other columns are dropped.

    Raises:
        BadRequest: the body is not UTF-8 or not CSV, has too many rows or columns, or has a header of more than
            MAX_HEADER characters. The message has the number of the first wrong line where possible.
        BadInput: two columns have the same name, or a column name is misspelt.

    Example:
        >>> read_csv(b"Image,shop\na.png,7\n")
           image
        0  a.png
    """
    if marks := re.match(b"(?:\xef\xbb\xbf)+", body):  # some tools write several byte-order marks
        body = body[marks.end() :]
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"expected {CSV_FORM} in UTF-8, got {kind(body)} in another encoding") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    start = io.StringIO(text[:MAX_HEADER])
    try:
        header = next(filter(None, csv.reader(start)), [])
    except csv.Error:
        header = []
    if start.tell() == MAX_HEADER < len(text):
        raise BadRequest(f"expected a CSV header of at most {MAX_HEADER:,} characters, got a longer one")
    names = _known_names(header)
    # Reads at most one row more than allowed, so that a body with millions of rows is rejected quickly.
    nrows = None if limits.rows is None else limits.rows + 1
    try:
        table = pd.read_csv(io.BytesIO(body), dtype=object, nrows=nrows)
    except Exception:  # the parser's messages may contain request data
        table = None
    # If the first line has more fields than the header, pandas makes an index of the surplus fields.
    if table is None or not isinstance(table.index, pd.RangeIndex):
        raise BadRequest(f"expected {CSV_FORM}, got {kind(text)} that cannot be read as CSV{_csv_fault(text)}")
    limits.check_rows(len(table))
    return table[list(names)].rename(columns=names)


def _csv_fault(text: str) -> str:
    """Describe the first malformed CSV line, as the end of an error message. Empty if no line is malformed."""
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(filter(None, reader), [])
        for fields in reader:
            if len(fields) > len(header):
                quoting = "a field that contains a comma must be in double quotes"
                return f": line {reader.line_num} has {len(fields)} fields, the header has {len(header)}; {quoting}"
    except csv.Error:
        return f": a quoted field in or before line {reader.line_num} is malformed or has no closing quote"
    return ""


def read_parquet(body: bytes) -> pd.DataFrame:
    """Read a Parquet body.

    Args:
        body: content of a Parquet file. The caller checks its size and its number of rows first.

    Returns:
        The columns that the request format defines (`COLUMNS`). Other columns are dropped.

    Raises:
        BadRequest: the body is not a Parquet file, or has too many columns.
        BadInput: two columns have the same name, or a column name is misspelt.
    """
    try:
        table = pd.read_parquet(io.BytesIO(body))
    except Exception:  # pyarrow's messages may contain request data
        raise BadRequest(f"expected a Parquet file, got {kind(body)} that cannot be read as Parquet") from None
    names = _known_names(table.columns)
    return table.reset_index(drop=True)[list(names)].rename(columns=names)
