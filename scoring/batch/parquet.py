"""Read Parquet files from Python streams without Arrow's threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def tables(stream: Any, rows: int) -> Iterator[pa.Table]:
    """Read a Parquet file piece by piece.

    Arrow's own threads read nothing. They can keep a reference to the stream for longer than the reader, and a thread
    that releases the stream while the interpreter exits aborts the process (github.com/apache/arrow/issues/34314).

    Args:
        stream: a seekable binary stream.
        rows: maximum number of rows per table.

    Yields:
        Tables with the file's rows, in order.

    Raises:
        pa.ArrowException: the file is not valid Parquet.
        OSError: the stream cannot be read.
    """
    file = pq.ParquetFile(stream, pre_buffer=False)
    for batch in file.iter_batches(rows, use_threads=False):
        yield pa.Table.from_batches([batch], file.schema_arrow)
