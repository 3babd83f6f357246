"""Sources of rows for batch jobs: lists of images, and tables with a common schema."""

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
from sam_endpoint.scoring.batch.files import check_name
from sam_endpoint.scoring.batch.sources.column_types import (
    canonical_names,
    conform_table,
    is_exact_in_float64,
    unify_schemas,
)
from sam_endpoint.scoring.batch.sources.listing import IMAGES, TABLES, list_input_files, suffix
from sam_endpoint.scoring.batch.sources.readers import READERS, SCHEMAS

THREADS = 16  # number of threads that read the schemas of files
UNREADABLE = (pa.ArrowException, ValueError, OSError, ImportError)


class Source(ABC):
    """Interface of an input: rows in a fixed order.

    Attributes:
        name: path or URL of the input.
        identity: value that identifies the input's content. It changes when a file changes.
        schema: columns of the rows. Later rows of JSON lines can have further columns of text.
        orientation: default of the param `orientation` for jobs on this input.
        notes: sentences about files and columns that are not read.
        done: share of the input that has been read, 0..1, or None if unknown.
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
        """Yield all rows, in tables of any number of rows. Raises BadData."""

    @abstractmethod
    def split(self) -> list[Source]:
        """Divide the source into parts that can be read in parallel. Together, they have the same rows and order."""

    def check(self) -> None:
        """Check that the first row can be read. Raises BadData."""
        if next(self.windows(1), None) is None:
            raise BadData(f"'{self.name}' has no rows")

    def windows(self, rows: int) -> Iterator[pa.Table]:
        """Yield all rows in tables of `rows` rows. The last table can be shorter. Raises BadData."""
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
        """Return a row by its number, by reading the input again from the start. Raises BadData."""
        first = 0
        for table in copy(self).tables():
            if number < first + len(table):
                row: dict[str, Any] = table.slice(number - first, 1).to_pylist()[0]
                return row
            first += len(table)
        raise BadData(f"'{self.name}' has changed since the job started")


class ImageFiles(Source):
    """Images as input: one row per image, without prompts.

    Args:
        name: path or URL of the input.
        names: paths or URLs of the images.
        notes: sentences about files that are not read.
    """

    orientation = "upright"  # browsers, cameras and labelling tools show images upright

    def __init__(self, name: str, names: Sequence[str], notes: Iterable[str] = ()) -> None:
        self.name, self.names, self.notes = name, names, [*notes]
        self.identity = [*names]
        self.schema = pa.schema([("image", pa.string())])

    def split(self) -> list[Source]:
        """Divide the images into groups of 1000."""
        return [ImageFiles(self.name, self.names[i : i + 1000]) for i in range(0, len(self.names), 1000)]

    def tables(self) -> Iterator[pa.Table]:
        """Yield tables with the column `image`."""
        for start in range(0, len(self.names), 1000):
            names = self.names[start : start + 1000]
            self.done = (start + len(names)) / len(self.names)
            yield pa.table({"image": pa.array(names, pa.string())})


class TableFiles(Source):
    """Tables as input: the rows of one or several files, in the order of the files.

    Args:
        name: path or URL of the input.
        fs: the fsspec file system.
        schemas: paths of the files with their schemas.
        schema: common schema of the files; None computes it from `schemas`.
        notes: sentences about files that are not read.

    Raises:
        BadData: the columns of a file cannot be scored, or the files have no common schema.
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
        self._names = {file: canonical_names(file_schema.names, file) for file, file_schema in schemas}
        renamed = [
            (
                file,
                pa.schema([field.with_name(name) for field, name in zip(file_schema, self._names[file], strict=True)]),
            )
            for file, file_schema in schemas
        ]
        self.schema = unify_schemas(renamed, self._is_exact) if schema is None else schema
        infos = [fs.info(file) for file in self.files]
        self.sizes = [int(info.get("size") or 0) for info in infos]
        changed = [str(info.get("mtime", info.get("LastModified", info.get("ETag", "")))) for info in infos]
        self.identity = [list(version) for version in zip(self.files, self.sizes, changed, strict=True)]
        self.notes = [*notes]
        unread = [name for name in self.schema.names if name not in COLUMNS]
        if unread:
            columns = ", ".join(f"'{name}'" for name in unread)
            text = "column {} is not read; it stays" if len(unread) == 1 else "columns {} are not read; they stay"
            self.notes.append(text.format(columns) + " in the output")

    def _is_exact(self, file: str, position: int) -> bool:
        with self.fs.open(file, "rb") as stream:  # a Parquet file: the columns of other files are text
            return is_exact_in_float64(stream, position)

    def split(self) -> list[Source]:
        """Divide the input into its files."""
        return [TableFiles(file, self.fs, [(file, file_schema)], self.schema) for file, file_schema in self.schemas]

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows of all files, with the types of the common schema. Raises BadData."""
        total = max(1, sum(self.sizes))
        for i, (file, file_schema) in enumerate(self.schemas):
            before = sum(self.sizes[:i])
            names = dict(zip(file_schema.names, self._names[file], strict=True))
            try:
                with self.fs.open(file, "rb") as stream:
                    for table in READERS[suffix(file)](stream, file.rpartition("/")[2]):
                        self.done = (before + min(stream.tell(), self.sizes[i])) / total
                        table = table.rename_columns([names.get(name, name) for name in table.column_names])
                        yield conform_table(table, self.schema, file)
            except UNREADABLE as error:
                raise _unreadable(file, error) from None
            self.done = (before + self.sizes[i]) / total


def find(where: str, exclude: Iterable[str] = ()) -> Source:
    r"""Open the input of a job. If the input has tables, return a source of its tables, else a source of its images.

    Args:
        where: a file, a folder, a glob pattern such as `photos/*.jpg`, or an fsspec URL of a file, folder or pattern.
        exclude: paths or URLs of files and folders to leave out, such as the job's own output.

    Returns:
        The source of the job's rows.

    Raises:
        BadData: the input has no tables and no images, or a table cannot be read or scored.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "prompts.csv").write_text('image,input_boxes\na.png,"[[1, 2, 30, 40]]"\n')
        ...     (table,) = find(f"{folder}/prompts.csv").windows(512)
        >>> table.column_names, table.num_rows
        (['image', 'input_boxes'], 1)
    """
    if not where.strip():
        raise BadData("the input path is empty; expected a file, folder, pattern or URL")
    try:
        fs, path = fsspec.core.url_to_fs(where)
        files = list_input_files(fs, where, path, [*_paths(exclude, fs)])
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
        only = ", got only the output of earlier jobs" if files.jobs else ""
        raise BadData(f"'{where}': expected tables ({', '.join(TABLES)}) or images ({', '.join(IMAGES)}){only}")
    names = [str(fs.unstrip_protocol(file)) if _remote(fs) else file for file in files.images]
    for name in names:
        check_name(name)
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
    """Return an error that names a file.

    Args:
        file: path or URL of the file.
        error: the exception that reading the file raised. A BadData is returned unchanged, because it names the file.
        always: whether to name the file in front of the message of a BadData too.
    """
    if isinstance(error, BadData) and not always:
        return error
    return BadData(f"'{file}' cannot be read: {(str(error) or type(error).__name__).splitlines()[0]}")


def _paths(urls: Iterable[str], fs: Any) -> Iterator[str]:
    """Yield the paths of URLs. Skip URLs of other types of file systems than `fs`."""
    for url in filter(None, urls):
        try:
            url_fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError):
            continue  # the error is reported when the file is written
        if type(url_fs) is type(fs):
            yield path.rstrip("/")


def _remote(fs: Any) -> bool:
    return "file" not in (fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,))
