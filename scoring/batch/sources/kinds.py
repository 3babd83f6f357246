"""Types of columns: one type for a column of several tables, and tables cast to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.rows import OUTPUT_COLUMNS, column_names

FAULT = "_sam_endpoint_fault"  # column with the reason why a line of a text file is no row; null for good rows
ANSWERS = tuple(name for name in OUTPUT_COLUMNS if name != "image_id")


def canonical(names: Sequence[str], file: str) -> list[str]:
    """Return the names of a table's columns as the contract spells them. Raises BadData, which names the file."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise BadData(f"'{file}' has two columns '{repeated[0]}'; rename or remove one")
    try:
        renamed = [str(name) for name in column_names(names).values()]
    except BadInput as error:
        raise BadData(f"'{file}', {error}") from None
    if "image" not in renamed and "image_id" not in renamed:
        raise BadData(f"'{file}': expected a column 'image', got {', '.join(names)}")
    taken = [name for name in ANSWERS if name in renamed]
    if taken:
        raise BadData(f"'{file}' has a column '{taken[0]}' already, which the answers need; rename it")
    return renamed


def unified(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """Return one schema for tables of these file names and schemas.

    Numbers and lists of numbers are widened. Other types that differ become text: JSON text, where a value is no text
    itself.

    Raises:
        BadData: a column holds bytes in one file and something else in another.
    """
    kinds: dict[str, pa.DataType] = {}
    origins: dict[str, str] = {}
    for file, schema in schemas:
        for column in schema:
            kind, known = _kind(column.name, column.type), kinds.get(column.name)
            common = kind if known is None else _common(known, kind)
            if common is None:
                raise BadData(
                    f"'{file}': column '{column.name}' holds {kind} here and {known} in '{origins[column.name]}'; "
                    "give it one type, or score the files one by one"
                )
            kinds[column.name] = common
            origins.setdefault(column.name, file)
    return pa.schema(list(kinds.items()))


def conformed(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """Cast the columns of a table to a schema's types; columns that the schema lacks stay. Raises BadData."""
    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        position = schema.get_field_index(name)
        kind = _kind(name, column.type) if position < 0 else schema.field(position).type
        try:
            arrays.append(cast(column, kind))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise BadData(
                f"'{file}': column '{name}' holds a value that is no {kind}, its type in the other files"
            ) from None
    return pa.table(arrays, names=table.column_names)


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the simplest type with the same values: without dictionaries, views and lists of other layouts."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pa.large_binary()
    if types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    if _is_list(kind):
        return pa.list_(plain(kind.value_type))
    return kind


def _kind(name: str, kind: pa.DataType) -> pa.DataType:
    """Return the type of a column: its plain type, or binary for images as lists of bytes."""
    kind = plain(kind)
    return pa.large_binary() if name == "image" and _is_bytes(kind) else kind


def as_text(value: object) -> str | None:
    """Return text as it is, and other values as JSON text."""
    if value is None or isinstance(value, str):
        return value
    simple = isinstance(value, (bool, int, float, list, tuple, dict))
    return json.dumps(value, default=str) if simple else str(value)


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type for the values of both, or None."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if _holds_bytes(first) != _holds_bytes(second):
        return None
    try:
        schemas = [pa.schema([("", kind)]) for kind in (first, second)]
        common: pa.DataType = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        return common
    except pa.ArrowException:
        return None if _holds_bytes(first) else pa.large_string()


def _holds_bytes(kind: pa.DataType) -> bool:
    if kind.num_fields:
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column in another type. Raises pa.ArrowException, and what Python's conversions raise."""
    if column.type == kind:
        return column
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text and not _is_text(plain(column.type)):
        return pa.chunked_array([pa.array([as_text(value) for value in column.to_pylist()], kind)])
    if pa.types.is_large_binary(kind) and _is_bytes(plain(column.type)):
        return pa.chunked_array([_joined(chunk) for chunk in column.cast(pa.list_(pa.uint8())).chunks], kind)
    try:
        return column.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])


def _joined(lists: pa.ListArray) -> pa.LargeBinaryArray:
    """Return lists of bytes as binary values."""
    content = lists.values.fill_null(0).to_numpy()
    ends = zip(lists.offsets[:-1].to_pylist(), lists.offsets[1:].to_pylist(), lists.is_valid().to_pylist(), strict=True)
    values = [content[start:end].tobytes() if valid else None for start, end, valid in ends]
    return pa.array(values, pa.large_binary())


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(_is_list(kind) and pa.types.is_uint8(kind.value_type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    names = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)
