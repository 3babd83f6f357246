"""Find a common schema for tables with different column types, and cast tables to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.rows import OUTPUT_COLUMNS, column_names

FAULT = "_sam_endpoint_fault"  # column with the error of a malformed line in a text file; null for valid rows
LARGE_INTEGERS = (pa.int64(), pa.uint64())
EXACT = 2**53  # float64 holds all integers up to this number
ANSWERS = tuple(  # columns that only the output has
    name for name in OUTPUT_COLUMNS if name != "image_id"
)


def canonical_names(names: Sequence[str], file: str) -> list[str]:
    """Check the names of a table's columns, and return them in the spelling of the request format.

    Args:
        names: names of the columns. Spellings such as `Input Boxes` for `input_boxes` are accepted.
        file: name of the file, for error messages.

    Returns:
        The names, with the columns that the model reads in their standard spelling.

    Raises:
        BadData: a column occurs twice, has a misspelt name or the name of an output column; or the columns `image` and
            `image_id` are both missing.

    Example:
        >>> canonical_names(["Image", "Input Boxes", "shop"], "a.csv")
        ['image', 'input_boxes', 'shop']
    """
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
        raise BadData(f"'{file}' has a column '{taken[0]}', which is the name of an output column; rename it")
    return renamed


def unify_schemas(
    schemas: Sequence[tuple[str, pa.Schema]], is_exact: Callable[[str, int], bool] = lambda file, position: False
) -> pa.Schema:
    """Return a common schema for tables.

    Different numeric types, also in lists, become a wider type that holds all values. Other different types become
    text. A value that is not text becomes JSON text.

    Args:
        schemas: the file name and schema of each table.
        is_exact: whether float64 holds all integers of a column, given its file and its position in the schema. It is
            called for columns of 64-bit integers that have another type in another file.

    Raises:
        BadData: a column has bytes in one file and another type in another file.

    Example:
        >>> first, second = pa.schema([("shop", pa.int32())]), pa.schema([("shop", pa.float64())])
        >>> unify_schemas([("a.parquet", first), ("b.parquet", second)]).field("shop").type
        DataType(double)
    """
    kinds: dict[str, pa.DataType] = {}
    origins: dict[str, str] = {}
    for file, schema in schemas:
        for column in schema:
            kind, earlier = _kind(column.name, column.type), kinds.get(column.name)
            common = kind if earlier is None else _common(earlier, kind)
            if common is None:
                raise BadData(
                    f"'{file}': column '{column.name}' has the type {kind}, and {earlier} in '{origins[column.name]}'; "
                    "use the same type in all files, or score each file in its own job"
                )
            kinds[column.name] = common
            origins.setdefault(column.name, file)
    for file, schema in schemas:
        for position, column in enumerate(schema):
            if column.type in LARGE_INTEGERS and column.type != (common := kinds[column.name]) and _is_number(common):
                kinds[column.name] = common if is_exact(file, position) else pa.large_string()
    return pa.schema(list(kinds.items()))


def is_exact_in_float64(stream: Any, position: int) -> bool:
    """Return whether float64 holds all integers in a column of a Parquet file, according to the file's statistics."""
    file = pq.ParquetFile(stream)
    name = file.schema_arrow.names[position]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    return all(_is_small(chunk.statistics) for chunk in chunks if chunk.path_in_schema == name)


def _is_small(statistics: Any) -> bool:
    if statistics is None or statistics.num_values == 0:
        return statistics is not None
    return bool(statistics.has_min_max and statistics.min >= -EXACT and statistics.max <= EXACT)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def conform_table(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """Cast the columns of a table to the types of a schema.

    Args:
        table: the table. Columns that the schema lacks only get their plain type.
        schema: the common schema.
        file: name of the file, for error messages.

    Raises:
        BadData: a value does not fit the type.
    """
    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        position = schema.get_field_index(name)
        kind = _kind(name, column.type) if position < 0 else schema.field(position).type
        try:
            arrays.append(cast(column, kind))
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            raise BadData(
                f"'{file}': column '{name}' has a value that does not fit {kind}, the column's type in all files"
            ) from None
    return pa.table(arrays, names=table.column_names)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the simplest type for the same values, without dictionaries, views and special list layouts."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pa.large_binary()
    if types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([(field.name, plain_type(field.type)) for field in kind])
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def _kind(name: str, kind: pa.DataType) -> pa.DataType:
    """Return the plain type of a column; binary for a column `image` with lists of bytes."""
    kind = plain_type(kind)
    return pa.large_binary() if name == "image" and _is_bytes(kind) else kind


def as_text(value: object) -> str | None:
    """Convert a value to text: text and None stay as they are; other values become JSON text."""
    if value is None or isinstance(value, str):
        return value
    simple = isinstance(value, (bool, int, float, list, tuple, dict))
    return json.dumps(value, default=str) if simple else str(value)


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """Return a type for the values of both types, or None."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if _holds_bytes(first) != _holds_bytes(second):
        return None
    if {pa.types.is_decimal(first), pa.types.is_decimal(second)} == {True, False}:
        return pa.large_string()  # Arrow's common type of a decimal and another number does not hold all values
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
    """Cast a column to another type.

    Raises:
        pa.ArrowException: a value does not fit the type.
        ValueError, TypeError, OverflowError: a value cannot be converted in Python.
    """
    if column.type == kind:
        return column
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if is_text and not _is_text(plain_type(column.type)):
        return pa.chunked_array([pa.array([as_text(value) for value in column.to_pylist()], kind)])
    if pa.types.is_large_binary(kind) and _is_bytes(plain_type(column.type)):
        return pa.chunked_array([_joined(chunk) for chunk in column.cast(pa.list_(pa.uint8())).chunks], kind)
    try:
        return column.cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return pa.chunked_array([pa.array(column.to_pylist(), kind)])


def _joined(lists: pa.ListArray) -> pa.LargeBinaryArray:
    """Convert lists of bytes to binary values."""
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
