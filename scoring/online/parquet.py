"""`check` has a Parquet body read by a process of its own before the endpoint reads it.

A few bytes of Parquet can stand for gigabytes, and pyarrow ends its process on some files that are broken. So a process
that is held to some memory and time goes first; it runs this file, which for that imports nothing but pyarrow.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.parquet as pq

MOST_OBJECTS = 1_000_000
MOST_BYTES = 2**28  # written out
READING_BYTES = 2**31
READING_SECONDS = 10
_one_at_a_time = threading.Lock()


def check(body: bytes) -> str | None:
    """What speaks against a Parquet file: that it repeats a column's name, is too large once written out, or ends
    whoever reads it. One that is broken and says so is not spoken against."""
    command = [sys.executable, "-P", __file__]
    with _one_at_a_time:
        done = subprocess.run(command, input=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        limits = f"{READING_BYTES:,} bytes of memory and {READING_SECONDS} seconds of a processor"
        return f"expected a Parquet file that can be read within {limits}, got one that cannot"
    return done.stdout.decode() or None


def objects(column: pa.Array) -> int:
    """How many objects of Python a column becomes: its texts, lists and structs, and those within them."""
    kind = column.type
    if pa.types.is_primitive(kind):
        return 0
    within: list[pa.Array] = []
    if pa.types.is_struct(kind):
        within = column.flatten()
    elif pa.types.is_nested(kind):
        within = [column.flatten()]
    return len(column) + sum(objects(one) for one in within)


def _wrong(file: pa.Buffer) -> str:
    try:
        names = pq.read_schema(pa.BufferReader(file)).names
        if len(set(names)) < len(names):
            return "expected a Parquet file of columns with different names, got the same one twice"
        table = pq.read_table(pa.BufferReader(file), use_threads=False)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # what a broken file is to pyarrow
        return ""
    if table.nbytes > MOST_BYTES:
        return f"expected a Parquet file of at most {MOST_BYTES:,} bytes written out, got {table.nbytes:,}"
    found = table.num_rows + sum(objects(chunk) for column in table.columns for chunk in column.chunks)
    if found > MOST_OBJECTS:
        return f"expected a Parquet file of at most {MOST_OBJECTS:,} rows, texts and lists, got {found:,}"
    return ""


if __name__ == "__main__":
    # What the limit counts must be the table alone: not stacks of threads nor a gigabyte set aside by an allocator.
    pa.set_memory_pool(pa.system_memory_pool())
    resource.setrlimit(resource.RLIMIT_DATA, (READING_BYTES, READING_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (READING_SECONDS, READING_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(_wrong(pa.py_buffer(sys.stdin.buffer.read())))
