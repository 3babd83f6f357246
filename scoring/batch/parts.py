"""Write the output of a batch job in parts, so that an interrupted job can resume."""

from __future__ import annotations

import json
import os
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.scoring.batch import parquet

NOTES = b"scoring.batch"


class Parts:
    """Parquet parts, each written atomically and stored with its summary.

    Args:
        where: path or URL of a folder, or of a `.parquet` file into which the parts are merged at the end; until then
            they are in a folder beside it.
        job: everything that the output depends on.
        overwrite: delete the output of another job.

    Raises:
        OutputConflict: the output, finished or not, belongs to another job.
    """

    def __init__(self, where: str, job: dict[str, Any], overwrite: bool = False) -> None:
        self.fs, self.path = fsspec.core.url_to_fs(where)
        self.single = self.path.lower().endswith(".parquet")
        self.folder = f"{self.path}.parts" if self.single else self.path.rstrip("/")
        self.job = json.loads(json.dumps(job))
        if overwrite:
            for old in {self.path, self.folder}:
                if self.fs.exists(old):
                    self.fs.rm(old, recursive=True)
        self._check()
        self.fs.makedirs(self.folder, exist_ok=True)
        if not self.fs.exists(f"{self.folder}/job.json"):
            self._write("job.json", json.dumps(self.job, indent=1).encode())

    def _check(self) -> None:
        advice = "choose another --output, or start anew with --overwrite"
        if self.single and self.fs.exists(self.path):
            if self._finished() != self.job:
                raise OutputConflict(f"'{self.path}' exists and is not this job's; {advice}")
        elif self.fs.exists(f"{self.folder}/job.json"):
            if json.loads(self.fs.cat_file(f"{self.folder}/job.json")) != self.job:
                raise OutputConflict(
                    f"'{self.folder}' was begun by another job (other model, input or params); {advice}"
                )
        elif self.fs.exists(self.folder) and (not self.fs.isdir(self.folder) or self.fs.ls(self.folder)):
            raise OutputConflict(f"'{self.folder}' exists and is not an unfinished job's; {advice}")

    def _finished(self) -> Any:
        """Return the job that wrote the finished single file, or None."""
        try:
            with self.fs.open(self.path, "rb") as stream:
                metadata = (pq.read_schema(stream).metadata or {}).get(NOTES, b"{}")
            return json.loads(metadata).get("job")
        except (pa.ArrowException, OSError, ValueError):
            return None

    @property
    def complete(self) -> bool:
        """Whether the whole job is finished."""
        return bool(self.fs.exists(self.path if self.single else f"{self.folder}/_SUCCESS"))

    def name(self, number: int) -> str:
        """Return the path of a part."""
        return f"{self.folder}/part-{number:06d}.parquet"

    def summary_of_part(self, number: int) -> dict[str, Any] | None:
        """Return the summary of a part, or None if the part does not exist or is unreadable."""
        try:
            with self.fs.open(self.name(number), "rb") as stream:
                notes: dict[str, Any] | None = json.loads((pq.read_schema(stream).metadata or {}).get(NOTES, b"null"))
            return notes
        except (OSError, pa.ArrowException, ValueError):
            return None

    def put(self, number: int, table: pa.Table, notes: dict[str, Any]) -> None:
        """Write a part and its summary. Raises OSError; earlier parts stay unchanged."""
        sink = pa.BufferOutputStream()
        pq.write_table(_with(table, notes), sink, compression="zstd")
        self._write(f"part-{number:06d}.parquet", sink.getvalue().to_pybytes())

    def finish(self, count: int, notes: dict[str, Any]) -> None:
        """Merge the parts into one file, or mark the folder as finished."""
        if not self.single:
            self._write("_SUCCESS", json.dumps(notes).encode())
            return
        schemas = [self._schema(number).remove_metadata() for number in range(count)]
        empty = pa.unify_schemas(schemas, promote_options="permissive").empty_table()
        schema = _with(empty, {"job": self.job, **notes}).schema
        unfinished = f"{self.folder}/whole"
        with self.fs.open(unfinished, "wb") as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            for number in range(count):
                with self.fs.open(self.name(number), "rb") as part:
                    tables = [empty, *parquet.tables(part, 4096)]
                writer.write_table(pa.concat_tables(tables, promote_options="permissive"))
        self.fs.mv(unfinished, self.path)
        self.fs.rm(self.folder, recursive=True)

    def summary(self) -> dict[str, Any]:
        """Return the summary of a finished job."""
        if self.single:
            with self.fs.open(self.path, "rb") as stream:
                text = (pq.read_schema(stream).metadata or {})[NOTES]
        else:
            text = self.fs.cat_file(f"{self.folder}/_SUCCESS")
        notes: dict[str, Any] = json.loads(text)
        return notes

    def _schema(self, number: int) -> pa.Schema:
        with self.fs.open(self.name(number), "rb") as stream:
            return pq.read_schema(stream)

    def _write(self, name: str, content: bytes) -> None:
        part = f"{self.folder}/.{name}.unfinished"
        with self.fs.open(part, "wb") as stream:
            stream.write(content)
            if hasattr(stream, "fileno"):
                stream.flush()
                os.fsync(stream.fileno())
        self.fs.mv(part, f"{self.folder}/{name}")


def _with(table: pa.Table, notes: dict[str, Any]) -> pa.Table:
    return table.replace_schema_metadata({NOTES: json.dumps(notes).encode()})
