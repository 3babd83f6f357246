"""Sources of rows: images, or tables of one schema."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any, ClassVar

import fsspec
import pyarrow as pa

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.rows import COLUMNS, OUTPUT_COLUMNS
from sam_endpoint.scoring.batch.sources.kinds import canonical, conformed, unified
from sam_endpoint.scoring.batch.sources.listing import IMAGES, TABLES, listing, suffix
from sam_endpoint.scoring.batch.sources.readers import READERS, SCHEMAS

THREADS = 16  # that read the schemas of files
UNREADABLE = (pa.ArrowException, ValueError, OSError, ImportError)


class Source(ABC):
    """Rows in order.

    Attributes:
        name: path or URL of the input.
        identity: value that differs for another input, and for the same input after a change.
        schema: columns of the rows; later rows of JSON lines may have more, of text.
        orientation: the param `orientation` of jobs over this source that do not set it.
        notes: sentences about files and columns that are not read.
        done: share of the input that has been read, if known.
        rows_read: number of rows that have been read.
    """

    orientation: ClassVar[str] = "stored"
    name: str
    identity: list[Any]
    schema: pa.Schema
    notes: list[str]
    done: float | None = None
    rows_read: int = 0

    @abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """Yield all rows, in tables of any size. Raises BadData."""

    @abstractmethod
    def split(self) -> list[Source]:
        """Return sources that can be read independently and together have the same rows in the same order."""

    def check(self) -> None:
        """Raise BadData if there are no rows, or if the first rows cannot be read."""
        if next(self.windows(1), None) is None:
            raise BadData(f"'{self.name}' has no rows")

    def windows(self, rows: int) -> Iterator[pa.Table]:
        """Yield all rows in tables of `rows` rows; the last table may be shorter. Raises BadData."""
        waiting: list[pa.Table] = []
        count = self.rows_read = 0
        for table in self.tables():
            waiting.append(table)
            count += len(table)
            self.rows_read += len(table)
            while count >= rows:
                whole = pa.concat_tables(waiting, promote_options="permissive")
                yield whole.slice(0, rows)
                waiting, count = [whole.slice(rows)], count - rows
        if count:
            yield pa.concat_tables(waiting, promote_options="permissive")

    def row(self, number: int) -> dict[str, Any]:
        """Return the row of a number by reading the rows before it again. Raises BadData."""
        first = 0
        for table in copy(self).tables():
            if number < first + len(table):
                row: dict[str, Any] = table.slice(number - first, 1).to_pylist()[0]
                return row
            first += len(table)
        raise BadData(f"'{self.name}' has changed while it was read")


class ImageFiles(Source):
    """One row per image, without prompts."""

    orientation = "upright"  # as browsers, cameras and annotation tools show a picture

    def __init__(self, name: str, names: Sequence[str], notes: Iterable[str] = ()) -> None:
        self.name, self.names, self.notes = name, names, [*notes]
        self.identity = [*names]
        self.schema = pa.schema([("image", pa.string())])

    def split(self) -> list[Source]:
        return [ImageFiles(self.name, self.names[i : i + 1000]) for i in range(0, len(self.names), 1000)]

    def tables(self) -> Iterator[pa.Table]:
        for start in range(0, len(self.names), 1000):
            names = self.names[start : start + 1000]
            self.done = (start + len(names)) / len(self.names)
            yield pa.table({"image": pa.array(names, pa.string())})


class TableFiles(Source):
    """The rows of several table files, in order.

    Args:
        name: path or URL of the input.
        fs: the file system.
        schemas: the files with their schemas.
        schema: the common schema; by default that of these files.
        notes: sentences about files that are not read.

    Raises:
        BadData: a file's columns cannot be scored, or the files' types cannot be brought together.
    """

    def __init__(
        self,
        name: str,
        fs: Any,
        schemas: Sequence[tuple[str, pa.Schema]],
        schema: pa.Schema | None = None,
        notes: Iterable[str] = (),
    ) -> None:
        self.name, self.fs, self.schemas = name, fs, schemas
        self.files = [file for file, _ in schemas]
        self._names = {file: canonical(found.names, file) for file, found in schemas}
        renamed = [
            (file, pa.schema([column.with_name(name) for column, name in zip(found, self._names[file], strict=True)]))
            for file, found in schemas
        ]
        self.schema = unified(renamed) if schema is None else schema
        infos = [fs.info(file) for file in self.files]
        self.sizes = [int(info.get("size") or 0) for info in infos]
        changed = [str(info.get("mtime", info.get("LastModified", info.get("ETag", "")))) for info in infos]
        self.identity = [list(version) for version in zip(self.files, self.sizes, changed, strict=True)]
        self.notes = [*notes]
        unread = [name for name in self.schema.names if name not in COLUMNS]
        if unread:
            columns = ", ".join(f"'{name}'" for name in unread)
            are = "column {} is not read; it stays" if len(unread) == 1 else "columns {} are not read; they stay"
            self.notes.append(are.format(columns) + " in the output")

    def split(self) -> list[Source]:
        return [TableFiles(file, self.fs, [(file, found)], self.schema) for file, found in self.schemas]

    def tables(self) -> Iterator[pa.Table]:
        total = max(1, sum(self.sizes))
        for i, (file, found) in enumerate(self.schemas):
            before = sum(self.sizes[:i])
            names = dict(zip(found.names, self._names[file], strict=True))
            try:
                with self.fs.open(file, "rb") as stream:
                    for table in READERS[suffix(file)](stream, file.rpartition("/")[2]):
                        self.done = (before + min(stream.tell(), self.sizes[i])) / total
                        table = table.rename_columns([names.get(name, name) for name in table.column_names])
                        yield conformed(table, self.schema, file)
            except UNREADABLE as error:
                raise _unreadable(file, error) from None
            self.done = (before + self.sizes[i]) / total


def find(where: str, exclude: Iterable[str] = ()) -> Source:
    """Return the source at a path, pattern or URL: tables if there are any, else images.

    Args:
        where: a file, a folder, a pattern such as `photos/*.jpg`, or an fsspec URL of these.
        exclude: files and folders that are not read though they are part of the input, such as the job's own output.

    Raises:
        BadData: there is nothing to read, or a file cannot be read or scored.
    """
    if not where.strip():
        raise BadData("the input has no name: expected a file, folder, pattern or URL")
    try:
        fs, path = fsspec.core.url_to_fs(where)
        files = listing(fs, where, path, [*_paths(exclude, fs)])
        schemas = _schemas(fs, files.tables)
        if files.tables != [path]:  # a folder or a pattern
            outputs = [file for file, schema in schemas if set(OUTPUT_COLUMNS) <= set(schema.names)]
            schemas = [(file, schema) for file, schema in schemas if file not in outputs]
            files.jobs += [file.rpartition("/")[2] for file in outputs]
        if schemas:
            return TableFiles(where, fs, schemas, notes=files.notes(images_are_read=False))
    except UNREADABLE as error:
        raise _unreadable(where, error) from None
    if not files.images:
        only = "; only the output of earlier jobs is there" if files.jobs else ""
        raise BadData(f"'{where}': expected tables ({', '.join(TABLES)}) or images ({', '.join(IMAGES)}){only}")
    names = [str(fs.unstrip_protocol(file)) if _remote(fs) else file for file in files.images]
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise BadData(f"'{shown}': the file's name is not UTF-8; rename it") from None
    return ImageFiles(where, names, files.notes(images_are_read=True))


def _schemas(fs: Any, files: Sequence[str]) -> list[tuple[str, pa.Schema]]:
    """Return the files with their schemas. Raises BadData."""

    def read(file: str) -> tuple[str, pa.Schema]:
        try:
            with fs.open(file, "rb") as stream:
                return file, SCHEMAS[suffix(file)](stream)
        except UNREADABLE as error:
            raise _unreadable(file, error, always=True) from None

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, files))


def _unreadable(file: str, error: Exception, always: bool = False) -> BadData:
    """Return an error that names the file; a BadData names it itself, unless it comes from the reader of a schema."""
    if isinstance(error, BadData) and not always:
        return error
    return BadData(f"'{file}' cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}")


def _paths(urls: Iterable[str], fs: Any) -> Iterator[str]:
    """Yield the paths of those URLs that belong to a file system."""
    for url in filter(None, urls):
        try:
            other, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError):
            continue  # reported when it is written
        if type(other) is type(fs):
            yield path.rstrip("/")


def _remote(fs: Any) -> bool:
    return "file" not in (fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,))
