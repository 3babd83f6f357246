"""Write the output of a batch job in parts, so that an interrupted job can resume.

A part is a Parquet file with the answers to a fixed number of rows. While the job works on a part, it saves the answers
so far in pieces: hidden Parquet files that the complete part replaces. Until the job is finished, a hidden file beside
each part and piece holds its SHA-256. A part or piece that is damaged or was changed is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.scoring.batch import parquet
from sam_endpoint.scoring.batch.locations import check_replaceable, entries, not_a_job, parse_location, remove_output

NOTES = b"scoring.batch"  # key in the Parquet metadata for the summary of a part and the description of the job
PIECE = ".piece"  # ending of a piece
DIGEST = ".sha256"  # ending of the hidden file with the hash of a part or piece
POSITION = "position"  # column of a piece: the position of the row in its part


class Parts:
    """The output of a job as Parquet parts. Each part is written atomically and contains its summary.

    Args:
        where: path or URL of the output: a folder for the parts, or a `.parquet` file. The parts of a file are written
            to the folder `FILE.parts` and merged into the file at the end.
        job: description of the job: everything that determines its output. An unfinished output is continued only if
            its description is the same.
        overwrite: whether to delete the output of another job. The output of the same job is continued.

    Raises:
        OutputConflict: the output holds the output of another job or other files, or cannot be written.
    """

    def __init__(self, where: str, job: dict[str, Any], overwrite: bool = False) -> None:
        self.fs, self.path, self.single = parse_location(where)
        self.folder = f"{self.path}.parts" if self.single else self.path
        self.job = json.loads(json.dumps(job))
        try:
            self.fs.invalidate_cache(self.folder)  # another process may have written since
            if overwrite:
                self._remove_other_job()
            self._check()
            if not self.complete:
                self.fs.makedirs(self.folder, exist_ok=True)
                if not self.fs.exists(f"{self.folder}/job.json"):
                    self._write("job.json", json.dumps(self.job, indent=1).encode())
            files = self.fs.ls(self.folder, detail=False) if self.fs.isdir(self.folder) else []
        except OSError as error:
            raise OutputConflict(f"'{where}' cannot be written: {error.strerror or error}") from None
        self._pieces: dict[int, list[str]] = {}
        for file in sorted(file for file in map(str, files) if file.endswith(PIECE)):
            self._pieces.setdefault(int(file.rpartition("/")[2].split("-")[1]), []).append(file)

    def _remove_other_job(self) -> None:
        """Delete the output of another job. Raises OutputConflict if the folder also holds other files."""
        has_file = self.single and self.fs.isfile(self.path)
        if has_file and self._finished() == self.job:
            return
        if self._described() != self.job:
            check_replaceable(self.fs, self.folder)
            remove_output(self.fs, self.folder)
        if has_file:
            self.fs.rm(self.path)

    def _check(self) -> None:
        advice = "choose another --output, or replace it with --overwrite"
        if self.single and self.fs.exists(self.path):
            if self._finished() != self.job:
                raise OutputConflict(f"'{self.path}' exists and is not the output of this job; {advice}")
        elif self.fs.exists(f"{self.folder}/job.json"):
            if self._described() != self.job:
                raise OutputConflict(
                    f"'{self.folder}' holds the output of another job (with another model, input or params); {advice}"
                )
        elif self.fs.exists(self.folder) and (not self.fs.isdir(self.folder) or entries(self.fs, self.folder)):
            raise not_a_job(self.folder)

    def _described(self) -> Any:
        """Return the description of the job that wrote the folder, or None. Raises OSError."""
        try:
            return json.loads(self.fs.cat_file(f"{self.folder}/job.json"))
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None

    def _finished(self) -> Any:
        """Return the description of the job that wrote the single output file, or None. Raises OSError."""
        try:
            with self.fs.open(self.path, "rb") as stream:
                metadata = (pq.read_schema(stream).metadata or {}).get(NOTES, b"{}")
            return json.loads(metadata).get("job")
        except (pa.ArrowException, ValueError):
            return None
        except OSError as error:
            if type(error) is not OSError or error.errno is not None:  # not Arrow's error for a damaged file
                raise
            return None

    @property
    def complete(self) -> bool:
        """Whether the whole job is finished, and no part is missing."""
        try:
            return bool(self.summary()) and (self.single or self._has_all_parts())
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError):
            return False

    def _has_all_parts(self) -> bool:
        files = set(map(str, self.fs.ls(self.folder, detail=False)))
        return files.issuperset(map(self.name, range(len(self._digests_of_finished()))))

    def _digests_of_finished(self) -> list[str]:
        """Return the hashes of the parts of a finished folder. Raises OSError, ValueError, KeyError or TypeError."""
        digests: list[str] = json.loads(self.fs.cat_file(f"{self.folder}/_SUCCESS"))["sha256"]
        return list(digests)

    def name(self, number: int) -> str:
        """Return the path of a part."""
        return f"{self.folder}/part-{number:06d}.parquet"

    def summary_of_part(self, number: int) -> dict[str, Any] | None:
        """Return the summary of a part, or None if the part does not exist, is unreadable or was changed."""
        try:
            if not self._is_unchanged(self.name(number), self._digest(number)):
                return None
            with self.fs.open(self.name(number), "rb") as stream:
                notes: dict[str, Any] | None = json.loads((pq.read_schema(stream).metadata or {}).get(NOTES, b"null"))
            return notes
        except (OSError, pa.ArrowException, ValueError):
            return None

    def put(self, number: int, table: pa.Table, notes: dict[str, Any]) -> None:
        """Write a part and delete its pieces.

        Args:
            number: number of the part.
            table: rows of the part with their answers.
            notes: summary of the part.

        Raises:
            OSError: the part cannot be written. Other parts stay unchanged.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(_with_metadata(table, notes), sink, compression="zstd")
        self._write_with_digest(f"part-{number:06d}.parquet", sink.getvalue().to_pybytes())
        for file in self._pieces.pop(number, []):
            self.fs.rm(file)
            with suppress(FileNotFoundError):
                self.fs.rm(self._digest_file(file))

    def put_piece(self, number: int, table: pa.Table, seconds: Mapping[str, float]) -> None:
        """Save answers of an unfinished part.

        Args:
            number: number of the part.
            table: the answers, with the position of each row in the column POSITION.
            seconds: time spent on these answers, by stage, in seconds.

        Raises:
            OSError: the answers cannot be written.
        """
        files = self._pieces.setdefault(number, [])
        sink = pa.BufferOutputStream()
        pq.write_table(_with_metadata(table, dict(seconds)), sink, compression="zstd")
        name = f".part-{number:06d}-{len(files):06d}{PIECE}"
        self._write_with_digest(name, sink.getvalue().to_pybytes())
        files.append(f"{self.folder}/{name}")

    def pieces(self, number: int) -> tuple[dict[int, dict[str, Any]], Counter[str]]:
        """Read the saved answers of an unfinished part. Pieces that are damaged or were changed are skipped.

        Args:
            number: number of the part.

        Returns:
            The answers by position of the row, and the time spent on them by stage, in seconds.
        """
        answers: dict[int, dict[str, Any]] = {}
        seconds: Counter[str] = Counter()
        for file in self._pieces.get(number, []):
            try:
                if not self._is_unchanged(file, self.fs.cat_file(self._digest_file(file)).decode()):
                    continue
                with self.fs.open(file, "rb") as stream:
                    notes = json.loads((pq.read_schema(stream).metadata or {})[NOTES])
                    stream.seek(0)
                    rows = [row for table in parquet.tables(stream, 4096) for row in table.to_pylist()]
            except (OSError, pa.ArrowException, ValueError, KeyError):
                continue
            answers.update((row.pop(POSITION), row) for row in rows)
            seconds.update(notes)
        return answers, seconds

    def finish(self, count: int, notes: dict[str, Any], sort_by: Sequence[str] = ()) -> None:
        """Merge the parts into the single output file, or mark the output folder as complete.

        Args:
            count: number of parts.
            notes: summary of the job.
            sort_by: columns by which the rows of a single output file are sorted; none for the order of the parts. The
                rows are sorted in memory.

        Raises:
            OSError: the output cannot be written.
        """
        if not self.single:
            digests = [self._digest(number) for number in range(count)]
            for file in [file for files in self._pieces.values() for file in files]:
                self.fs.rm(file)
            self._write("_SUCCESS", json.dumps({**notes, "sha256": digests}).encode())
            self.fs.invalidate_cache(self.folder)
            for file in map(str, self.fs.ls(self.folder, detail=False)):
                if file.endswith(DIGEST):
                    self.fs.rm(file)
            return
        schemas = [self._schema(number).remove_metadata() for number in range(count)]
        empty = pa.unify_schemas(schemas, promote_options="permissive").empty_table()
        schema = _with_metadata(empty, {"job": self.job, **notes}).schema
        unfinished = f"{self.folder}/whole"
        with self.fs.open(unfinished, "wb") as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            unsorted = []
            for number in range(count):
                with self.fs.open(self.name(number), "rb") as part:
                    tables = [empty, *parquet.tables(part, 4096)]
                table = pa.concat_tables(tables, promote_options="permissive")
                if sort_by:
                    unsorted.append(table)
                else:
                    writer.write_table(table)
            if sort_by:
                writer.write_table(pa.concat_tables(unsorted).sort_by([(name, "ascending") for name in sort_by]))
        self.fs.mv(unfinished, self.path)
        remove_output(self.fs, self.folder)
        with suppress(OSError, NotImplementedError):  # object stores have no folders
            self.fs.rmdir(self.folder)

    def summary(self) -> dict[str, Any]:
        """Return the summary of a finished job. For an unfinished job, raise OSError, pa.ArrowException or KeyError."""
        if self.single:
            with self.fs.open(self.path, "rb") as stream:
                text = (pq.read_schema(stream).metadata or {})[NOTES]
        else:
            text = self.fs.cat_file(f"{self.folder}/_SUCCESS")
        notes: dict[str, Any] = json.loads(text)
        notes.pop("sha256", None)
        return notes

    def _digest_file(self, file: str) -> str:
        """Return the path of the hidden file with the hash of a part or piece."""
        return f"{self.folder}/.{file.rpartition('/')[2].lstrip('.')}{DIGEST}"

    def _digest(self, number: int) -> str:
        """Return the hash that a part had when it was written; empty if it is not known."""
        with suppress(OSError, ValueError):
            return str(self.fs.cat_file(self._digest_file(self.name(number))).decode())
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            return self._digests_of_finished()[number]
        return ""

    def _is_unchanged(self, file: str, digest: str) -> bool:
        """Return whether a file still has its hash. Raises OSError."""
        with self.fs.open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == digest

    def _write_with_digest(self, name: str, content: bytes) -> None:
        """Write the hash of a file, then the file.

        If the job is killed in between, the file is missing or does not have this hash. The next run computes it again.
        """
        self._write(self._digest_file(name).rpartition("/")[2], hashlib.sha256(content).hexdigest().encode())
        self._write(name, content)

    def _schema(self, number: int) -> pa.Schema:
        with self.fs.open(self.name(number), "rb") as stream:
            return pq.read_schema(stream)

    def _write(self, name: str, content: bytes) -> None:
        part = f"{self.folder}/.{name}.unfinished"
        with self.fs.open(part, "wb") as stream:
            stream.write(content)
            if isinstance(self.fs, LocalFileSystem):  # the streams of other file systems have no descriptor
                stream.flush()
                os.fsync(stream.fileno())
        self.fs.mv(part, f"{self.folder}/{name}")


def _with_metadata(table: pa.Table, notes: dict[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({NOTES: json.dumps(notes).encode()})
