"""A script that reads a Parquet file, checks its limits and measures its table. It imports only pyarrow."""

from __future__ import annotations

import json
import os
import resource
import sys

import pyarrow as pa
import pyarrow.parquet as pq

MAX_OBJECTS = 300_000  # maximum number of rows, texts, lists and structs
MAX_LEAVES = 1000  # maximum number of columns, including the fields of structs
MAX_BYTES = 2**28  # maximum size of the table in memory, in bytes
READING_SECONDS = 10  # limit of CPU time
OUT_OF_MEMORY = 3  # exit code


def objects(column: pa.Array) -> int:
    """Count the Python objects that a column converts to: strings, lists and structs, including nested ones."""
    kind = column.type
    if pa.types.is_primitive(kind):
        return 0
    children: list[pa.Array] = []
    if pa.types.is_struct(kind):
        children = column.flatten()
    elif pa.types.is_nested(kind):
        children = [column.flatten()]
    return len(column) + sum(objects(child) for child in children)


def examine(file: pa.Buffer, max_rows: int) -> tuple[str, int]:
    """Read a file.

    Args:
        file: the file.
        max_rows: largest number of rows.

    Returns:
        The reason to reject the file, or an empty string if it is accepted. And the size of its table in bytes, or 0 if
        the file is rejected or malformed.
    """
    try:
        described = pq.read_metadata(pa.BufferReader(file))
        if described.num_rows > max_rows:
            return f"expected at most {max_rows:,} rows a request, got {described.num_rows:,}: send several requests", 0
        if described.num_columns > MAX_LEAVES:
            return f"expected a Parquet file of at most {MAX_LEAVES:,} columns, got {described.num_columns:,}", 0
        names = pq.read_schema(pa.BufferReader(file)).names
        if len(set(names)) < len(names):
            return "expected a Parquet file whose column names are unique, got the same name twice", 0
        table = pq.read_table(pa.BufferReader(file), use_threads=False)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # pyarrow's errors for a malformed file
        return "", 0
    if table.nbytes > MAX_BYTES:
        return f"expected a Parquet file of at most {MAX_BYTES:,} uncompressed bytes, got {table.nbytes:,}", 0
    count = table.num_rows + sum(objects(chunk) for column in table.columns for chunk in column.chunks)
    if count > MAX_OBJECTS:
        return f"expected a Parquet file of at most {MAX_OBJECTS:,} rows, texts and lists, got {count:,}", 0
    return "", table.nbytes


def main(max_rows: int, max_bytes: int) -> int:
    """Read a file from standard input, and write the result of `examine` to standard output as JSON.

    Args:
        max_rows: largest number of rows.
        max_bytes: limit on the memory for the file and its table.
    """
    os.nice(10)  # the endpoint's own process has priority
    # With the system's allocator, the memory limit applies to the file and its table only.
    pa.set_memory_pool(pa.system_memory_pool())
    with open("/proc/self/status") as status:
        before = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (before + max_bytes, before + max_bytes))
    # The soft limit sends SIGXCPU, which tells the endpoint the reason. The hard limit sends SIGKILL, which does not.
    resource.setrlimit(resource.RLIMIT_CPU, (READING_SECONDS, READING_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = examine(pa.py_buffer(sys.stdin.buffer.read()), max_rows)
    except (MemoryError, pa.ArrowMemoryError):
        return OUT_OF_MEMORY
    sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
