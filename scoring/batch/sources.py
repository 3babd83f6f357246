"""Read the input of a batch job in windows of rows: tables, folders of tables, or images, by path or fsspec URL."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.rows import COLUMNS, OUTPUT_COLUMNS
from sam_endpoint.scoring.batch import parquet

TABLES = (".csv", ".parquet", ".jsonl", ".ndjson")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class Source(ABC):
    """Rows in order.

    Attributes:
        name: path or URL of the input.
        identity: value that differs for another input, and for the same input after a change.
        done: share of the input that has been read, if known.
    """

    name: str
    identity: list[Any]
    done: float | None = None

    @abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows, in tables of any size."""

    @abstractmethod
    def split(self) -> list[Source]:
        """Return sources that can be read independently and together have the same rows in the same order."""

    def check(self) -> None:
        """Raise BadData if there are no rows, or if the first rows cannot be scored."""
        if next(self.windows(1), None) is None:
            raise BadData(f"'{self.name}' has no rows")

    def windows(self, rows: int) -> Iterator[pa.Table]:
        """Yield all rows in tables of `rows` rows; the last table may be shorter. Raises BadData."""
        waiting: list[pa.Table] = []
        count = 0
        for table in self.tables():
            check(table.column_names, self.name)
            waiting.append(table)
            count += len(table)
            while count >= rows:
                whole = pa.concat_tables(waiting, promote_options="permissive")
                yield whole.slice(0, rows)
                waiting, count = [whole.slice(rows)], count - rows
        if count:
            yield pa.concat_tables(waiting, promote_options="permissive")


class ImageFiles(Source):
    """One row per image, without prompts."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        self.name, self.names = name, names
        self.identity = [*names]

    def split(self) -> list[Source]:
        return [ImageFiles(self.name, self.names[i : i + 1000]) for i in range(0, len(self.names), 1000)]

    def tables(self) -> Iterator[pa.Table]:
        for start in range(0, len(self.names), 1000):
            self.done = start / len(self.names)
            yield pa.table({"image": pa.array(self.names[start : start + 1000], pa.string())})


class TableFiles(Source):
    """The rows of several table files, in order."""

    def __init__(self, name: str, fs: Any, files: Sequence[str]) -> None:
        self.name, self.fs, self.files = name, fs, files
        infos = [fs.info(file) for file in files]
        self.sizes = [int(info.get("size") or 0) for info in infos]
        changed = [str(info.get("mtime", info.get("LastModified", info.get("ETag", "")))) for info in infos]
        self.identity = [list(version) for version in zip(files, self.sizes, changed, strict=True)]

    def split(self) -> list[Source]:
        return [TableFiles(file, self.fs, [file]) for file in self.files]

    def tables(self) -> Iterator[pa.Table]:
        total = max(1, sum(self.sizes))
        for i, file in enumerate(self.files):
            before = sum(self.sizes[:i])
            try:
                with self.fs.open(file, "rb") as stream:
                    for table in READERS[_suffix(file)](stream):
                        self.done = (before + min(stream.tell(), self.sizes[i])) / total
                        yield table
            except (pa.ArrowException, ValueError, OSError) as error:
                if isinstance(error, BadData):
                    raise
                raise BadData(
                    f"'{file}' cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}"
                ) from None


def find(where: str) -> Source:
    """Return the source at a path, glob or URL: tables if there are any, else images. Raises BadData."""
    try:
        fs, path = fsspec.core.url_to_fs(where)
        if any(sign in path for sign in "*?["):
            files = sorted(file for file in fs.glob(path) if not fs.isdir(file))
        elif fs.isdir(path):
            files = sorted(fs.find(path))
        elif fs.exists(path):
            files = [path]
        else:
            raise BadData(f"'{where}': there is no such file")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, BadData):
            raise
        raise BadData(f"'{where}' cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    tables = [file for file in files if _suffix(file) in TABLES]
    if tables:
        return TableFiles(where, fs, tables)
    pictures = [file for file in files if _suffix(file) in IMAGES]
    if not pictures:
        raise BadData(f"'{where}': expected tables ({', '.join(TABLES)}) or images ({', '.join(IMAGES)})")
    return ImageFiles(where, [str(fs.unstrip_protocol(file)) if _remote(fs) else file for file in pictures])


def check(columns: Sequence[str], name: str) -> None:
    """Raise BadData if the columns do not allow scoring."""
    if "image" not in columns and "image_id" not in columns:
        raise BadData(f"'{name}': expected a column 'image', got {', '.join(map(str, columns))}")
    taken = [column for column in OUTPUT_COLUMNS if column in columns and column not in COLUMNS]
    if taken:
        raise BadData(f"'{name}' has a column '{taken[0]}' already, which the answers need; rename it")


def _csv(stream: Any) -> Iterator[pa.Table]:
    """Read all columns as text, because a CSV file has no types and a late row can change an inferred type."""
    with pd.read_csv(stream, dtype=str, keep_default_na=False, chunksize=1000) as chunks:
        for chunk in chunks:
            yield _as_text({str(name): chunk[name] for name in chunk.columns}, len(chunk))


def _parquet(stream: Any) -> Iterator[pa.Table]:
    return parquet.tables(stream, 256)


def _json_lines(stream: Any) -> Iterator[pa.Table]:
    """Keep strings and convert other values to JSON text; a missing key is null."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}

    def table() -> pa.Table:
        return _as_text({name: [row.get(name) for row in rows] for name in names}, len(rows))

    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise BadData(f"line {number}: expected a JSON object") from None
        if not isinstance(row, dict):
            raise BadData(f"line {number}: expected a JSON object")
        rows.append(row)
        names.update(dict.fromkeys(row))
        if len(rows) == 1000:
            yield table()
            rows = []
    if rows:
        yield table()


def _as_text(columns: dict[str, Any], rows: int) -> pa.Table:
    arrays = {name: pa.array([_text(value) for value in values], pa.large_string()) for name, values in columns.items()}
    return pa.table(arrays) if arrays else pa.table({"": pa.nulls(rows)})


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


READERS = {".csv": _csv, ".parquet": _parquet, ".jsonl": _json_lines, ".ndjson": _json_lines}


def _suffix(file: str) -> str:
    name = file.rpartition("/")[2].lower()
    return "." + name.rpartition(".")[2] if "." in name else ""


def _remote(fs: Any) -> bool:
    return "file" not in (fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,))
