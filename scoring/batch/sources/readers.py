"""Read table files: CSV, JSON lines and Parquet.

A malformed line of a text file does not stop the reader. It becomes a row whose column FAULT has the reason.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.rows import column_names
from sam_endpoint.scoring.batch import parquet
from sam_endpoint.scoring.batch.sources.column_types import ANSWERS, FAULT, as_text

ROWS = 1000  # rows per table
PROBE_BYTES = 2**20  # bytes at the start of a file that are checked for UTF-8
MAX_FIELD = 2**29  # characters: enough for the largest image in base64, and a limit for a field without closing quote
ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
SAVE_AS = "save the file as UTF-8"
TEXT = pa.large_string()


class BadLine(BadInput):
    """A malformed line of a text file. The attribute `column` is the line's place in the file."""

    def __str__(self) -> str:
        place = self.column if self.row is None else f"row {self.row} ({self.column})"
        return f"{place}, expected {self.expected}, got {self.got}"

    @classmethod
    def from_text(cls, fault: str) -> BadLine:
        """Convert a cell of the column FAULT to an error."""
        return cls(*json.loads(fault))


def fault(place: str, expected: str, got: str) -> str:
    """Return a cell of the column FAULT, for a malformed line.

    Args:
        place: line and file.
        expected: description of a valid line.
        got: description of this line, without its content.
    """
    return json.dumps([place, expected, got])


def csv_schema(stream: Any) -> pa.Schema:
    """Read the schema of a CSV file, in which all columns are text. Raises BadData."""
    _check_text(stream)
    lines = _Lines(stream)
    return pa.schema([(name, TEXT) for name in _header(csv.reader(lines, strict=True))])


def csv_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Read a CSV file.

    Args:
        stream: the file as a binary stream.
        name: name of the file, for error messages.

    Yields:
        Tables with the rows. All values are text, because CSV has no types.

    Raises:
        BadData: the file has no valid header.
    """
    csv.field_size_limit(MAX_FIELD)
    lines = _Lines(stream)
    reader = csv.reader(lines, strict=True)
    header = _header(reader)
    rows: list[list[str] | str] = []
    while True:
        line, problem = reader.line_num + 1, None
        try:
            fields = next(reader)
            if not fields or (len(header) > 1 and len(fields) == 1 and not fields[0].strip()):
                continue  # a blank line
        except StopIteration:
            break
        except csv.Error as error:
            fields, problem = [], f"a line that is not valid CSV ({error})"
        problem = lines.problem() or problem
        place = f"line {line}" if reader.line_num == line else f"lines {line} to {reader.line_num}"
        if problem:
            rows.append(fault(f"{place} of '{name}'", "a row of text", problem))
        elif len(fields) != len(header):
            expected = f"{len(header)} fields, as many as the header has"
            rows.append(fault(f"{place} of '{name}'", expected, str(len(fields))))
        else:
            rows.append(fields)
        if len(rows) == ROWS:
            yield _table(header, rows)
            rows = []
    if rows:
        yield _table(header, rows)


def json_schema(stream: Any) -> pa.Schema:
    """Read the keys of the first ROWS lines of a file of JSON lines, as a schema of text columns. Raises BadData."""
    _check_text(stream)
    names: dict[str, None] = {}
    refused: dict[str, None] = {}
    for _, row in zip(range(ROWS), _objects(stream, ""), strict=False):
        if isinstance(row, dict):
            try:
                names.update(dict.fromkeys(_renamed(row).values()))
            except BadInput:
                refused.update(dict.fromkeys(row))
    if not names and not refused:
        raise BadData("its first lines have no JSON object")
    try:
        _renamed({**names, **refused})
    except BadInput:  # the names are wrong in all rows, so the caller rejects the file
        names.update(refused)
    return pa.schema([(name, TEXT) for name in names])


def json_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Read a file of JSON lines.

    Args:
        stream: the file as a binary stream.
        name: name of the file, for error messages.

    Yields:
        Tables with the rows. Text stays as it is, other values become JSON text, and missing keys become null.
    """
    rows: list[dict[str, str | None] | str] = []
    names: dict[str, None] = {}

    def table() -> pa.Table:
        keys = list(names)
        return _table(keys, [row if isinstance(row, str) else [row.get(key) for key in keys] for row in rows])

    for row in _checked(_objects(stream, name), name):
        rows.append(row)
        if isinstance(row, dict):
            names.update(dict.fromkeys(row))
        if len(rows) == ROWS:
            yield table()
            rows = []
    if rows:
        yield table()


def parquet_schema(stream: Any) -> pa.Schema:
    """Read the schema of a Parquet file. Raises pa.ArrowException."""
    return pq.read_schema(stream)


def parquet_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Yield tables with the rows of a Parquet file. Raises pa.ArrowException and OSError."""
    return parquet.tables(stream, 256)


class _Lines:
    """The lines of a text file. Null bytes and bytes that are not UTF-8 raise no exception; `problem` reports them."""

    def __init__(self, stream: Any) -> None:
        self._lines = _text_lines(stream)
        self._problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._problem = _problem(line) or self._problem
            yield line

    def problem(self) -> str | None:
        """Return the problem of the lines since the last call, or None."""
        problem, self._problem = self._problem, None
        return problem


def _text_lines(stream: Any) -> Iterator[str]:
    """Yield the lines of a stream with their line ends. Bytes that are not UTF-8 become surrogates."""
    lines = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    try:
        yield from lines
    finally:
        with suppress(ValueError):  # the stream is already closed
            lines.detach()  # because the wrapper would close the stream


def _problem(line: str) -> str | None:
    if "\0" in line:
        return "a null byte"
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            return f"bytes that are not UTF-8 ({SAVE_AS})"
    return None


def _header(reader: Any) -> list[str]:
    """Return the names in the first line that is not blank. Empty names are replaced as in pandas. Raises BadData."""
    try:
        header: list[str] = next(fields for fields in reader if "".join(fields).strip())
    except StopIteration:
        raise BadData("it is empty") from None
    except csv.Error as error:
        raise BadData(f"its first line is not valid CSV ({error})") from None
    separators = [sign for sign in (";", "\t", "|") if len(header) == 1 and sign in header[0]]
    if separators:
        raise BadData(f"expected commas between the columns, got {separators[0]!r}")
    return [name if name.strip() else f"Unnamed: {position}" for position, name in enumerate(header)]


def _objects(stream: Any, name: str) -> Iterator[dict[str, str | None] | str]:
    """Yield the objects in a file of JSON lines with their values as text; for malformed lines, cells of FAULT."""
    for number, line in enumerate(_text_lines(stream), 1):
        if not line.strip():
            continue
        problem = _problem(line)
        if problem is None:
            try:
                row = json.loads(line)
                if isinstance(row, dict):
                    values = {key: as_text(value) for key, value in row.items()}
                    "".join([*values, *filter(None, values.values())]).encode()
                    yield values
                    continue
                problem = "a JSON value of another type"
            except UnicodeEncodeError:
                problem = "an unpaired surrogate escape"
            except (ValueError, RecursionError):
                problem = "text that is not JSON"
        yield fault(f"line {number} of '{name}'", "a JSON object", problem)


def _checked(rows: Iterable[dict[str, str | None] | str], name: str) -> Iterator[dict[str, str | None] | str]:
    """Yield rows with their keys in standard spelling. A row with a misspelt key becomes a cell of FAULT."""
    names_by_keys: dict[tuple[str, ...], dict[str, str] | str] = {}
    for row in rows:
        if isinstance(row, dict):
            keys = tuple(row)
            if keys not in names_by_keys:
                try:
                    names_by_keys[keys] = _renamed(keys)
                except BadInput as error:
                    names_by_keys[keys] = fault(f"a line of '{name}'", error.expected, f"a key '{error.column}'")
            names = names_by_keys[keys]
            yield names if isinstance(names, str) else {names[key]: value for key, value in row.items()}
        else:
            yield row


def _renamed(keys: Iterable[str]) -> dict[str, str]:
    """Map keys to their standard spelling. Raises BadInput for a misspelt key and for the name of an output column."""
    for key in keys:
        if key in (*ANSWERS, FAULT):
            raise BadInput(key, "a key that is not the name of an output column", "")
    return {str(key): str(name) for key, name in column_names(keys).items()}


def _table(names: list[str], rows: list[Any]) -> pa.Table:
    """Convert rows to a table of text. A row given as text is a cell of the column FAULT."""
    faults = [row if isinstance(row, str) else None for row in rows]
    empty = [None] * len(names)
    columns = zip(*(empty if isinstance(row, str) else row for row in rows), strict=True)
    arrays = [pa.array(column, TEXT) for column in columns]
    if any(faults) or not names:
        return pa.table([*arrays, pa.array(faults, TEXT)], names=[*names, FAULT])
    return pa.table(arrays, names=names)


def _check_text(stream: Any) -> None:
    """Check that the first bytes of a file are UTF-8 text. Raises BadData."""
    head = stream.read(PROBE_BYTES)
    stream.seek(0)
    if not head.strip():
        raise BadData("it is empty")
    encoding = next((name for mark, name in ENCODINGS.items() if head.startswith(mark)), None)
    if encoding is None and b"\0" in head.partition(b"\n")[0]:
        encoding = "UTF-16 or binary"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        encoding = encoding or "Latin-1, perhaps"
    if encoding:
        raise BadData(f"it is not UTF-8 text ({encoding}); {SAVE_AS}")


SCHEMAS = {".csv": csv_schema, ".parquet": parquet_schema, ".jsonl": json_schema, ".ndjson": json_schema}
READERS = {".csv": csv_tables, ".parquet": parquet_tables, ".jsonl": json_tables, ".ndjson": json_tables}
