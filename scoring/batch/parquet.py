"""Parquet files, read through Python's streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def tables(stream: Any, rows: int) -> Iterator[pa.Table]:
    """A file in tables of at most `rows` rows. Raises pa.ArrowException and OSError.

    Nothing is read by Arrow's own threads: these may hold the stream a moment longer than its reader does, and one that
    lets go of it when the interpreter ends aborts the process (github.com/apache/arrow/issues/34314).
    """
    file = pq.ParquetFile(stream, pre_buffer=False)
    for batch in file.iter_batches(rows, use_threads=False):
        yield pa.Table.from_batches([batch], file.schema_arrow)
