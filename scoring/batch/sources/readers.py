"""Readers of table files. A line of a text file that is no row becomes a row with its fault; the others are read."""

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
from sam_endpoint.scoring.batch.sources.kinds import ANSWERS, FAULT, as_text

ROWS = 1000
PROBE_BYTES = 2**20
MAX_FIELD = 2**29  # characters, enough for the base64 text of the largest image; ends the search for a closing quote
ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
SAVE_AS = "save the file as UTF-8"
TEXT = pa.large_string()


class BadLine(BadInput):
    """A line of a text file that cannot be read as a row; `column` holds its place."""

    def __str__(self) -> str:
        place = self.column if self.row is None else f"row {self.row} ({self.column})"
        return f"{place}, expected {self.expected}, got {self.got}"

    @classmethod
    def from_text(cls, fault: str) -> BadLine:
        """Return the error that a cell of the column FAULT holds."""
        return cls(*json.loads(fault))


def fault(place: str, expected: str, got: str) -> str:
    """Return a cell of the column FAULT."""
    return json.dumps([place, expected, got])


def csv_schema(stream: Any) -> pa.Schema:
    """Return the columns of a CSV file, all text. Raises BadData."""
    _check_text(stream)
    lines = _Lines(stream)
    return pa.schema([(name, TEXT) for name in _header(csv.reader(lines, strict=True))])


def csv_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Yield the rows of a CSV file as text, because a CSV file has no types."""
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
            fields, problem = [], f"a line that is no CSV ({error})"
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
    """Return the keys of the first rows of a file of JSON lines, all text. Raises BadData."""
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
        raise BadData("its first lines hold no JSON object")
    try:
        _renamed({**names, **refused})
    except BadInput:  # not only some rows are wrong; the caller refuses these names
        names.update(refused)
    return pa.schema([(name, TEXT) for name in names])


def json_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Yield the rows of a file of JSON lines: text as it is, other values as JSON text; a missing key is null."""
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
    """Return the columns of a Parquet file. Raises pa.ArrowException."""
    return pq.read_schema(stream)


def parquet_tables(stream: Any, name: str) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file."""
    return parquet.tables(stream, 256)


class _Lines:
    """Lines of text that may be broken: bytes that are not UTF-8 and null bytes are noted, not raised."""

    def __init__(self, stream: Any) -> None:
        self._lines = _text_lines(stream)
        self._problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._problem = _problem(line) or self._problem
            yield line

    def problem(self) -> str | None:
        """Return what was wrong with the lines since the last call, or None."""
        problem, self._problem = self._problem, None
        return problem


def _text_lines(stream: Any) -> Iterator[str]:
    """Yield the lines of a stream, with their ends; bytes that are not UTF-8 become surrogates."""
    lines = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    try:
        yield from lines
    finally:
        with suppress(ValueError):  # the stream is closed already
            lines.detach()  # else the wrapper would close it


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
    """Return the names in the first line that is not blank; an empty cell gets the name that pandas gives it."""
    try:
        header: list[str] = next(fields for fields in reader if "".join(fields).strip())
    except StopIteration:
        raise BadData("it is empty") from None
    except csv.Error as error:
        raise BadData(f"its first line is no CSV ({error})") from None
    others = [sign for sign in (";", "\t", "|") if len(header) == 1 and sign in header[0]]
    if others:
        raise BadData(f"expected commas between the columns, got {others[0]!r}")
    return [name if name.strip() else f"Unnamed: {position}" for position, name in enumerate(header)]


def _objects(stream: Any, name: str) -> Iterator[dict[str, str | None] | str]:
    """Yield the objects in a file of JSON lines, their values as text, and the faults of the other lines."""
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
                problem = "another value"
            except UnicodeEncodeError:
                problem = "an escape of half a character"
            except (ValueError, RecursionError):
                problem = "something else"
        yield fault(f"line {number} of '{name}'", "a JSON object", problem)


def _checked(rows: Iterable[dict[str, str | None] | str], name: str) -> Iterator[dict[str, str | None] | str]:
    """Yield rows with the contract's names of their keys; a row of misspelt keys becomes a fault."""
    known: dict[tuple[str, ...], dict[str, str] | str] = {}
    for row in rows:
        if isinstance(row, dict):
            keys = tuple(row)
            if keys not in known:
                try:
                    known[keys] = _renamed(keys)
                except BadInput as error:
                    known[keys] = fault(f"a line of '{name}'", error.expected, f"a key '{error.column}'")
            names = known[keys]
            yield names if isinstance(names, str) else {names[key]: value for key, value in row.items()}
        else:
            yield row


def _renamed(keys: Iterable[str]) -> dict[str, str]:
    """Map keys to the contract's names. Raises BadInput."""
    for key in keys:
        if key in (*ANSWERS, FAULT):
            raise BadInput(key, "another key, because the answers need this one", "")
    return {str(key): str(name) for key, name in column_names(keys).items()}


def _table(names: list[str], rows: list[Any]) -> pa.Table:
    """Return rows as a table of text; a row that is a fault has its text in the column FAULT."""
    faults = [row if isinstance(row, str) else None for row in rows]
    empty = [None] * len(names)
    columns = zip(*(empty if isinstance(row, str) else row for row in rows), strict=True)
    arrays = [pa.array(column, TEXT) for column in columns]
    if any(faults) or not names:
        return pa.table([*arrays, pa.array(faults, TEXT)], names=[*names, FAULT])
    return pa.table(arrays, names=names)


def _check_text(stream: Any) -> None:
    """Raise BadData if the first bytes of a file are no UTF-8 text."""
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
