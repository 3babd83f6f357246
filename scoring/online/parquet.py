"""Validate a Parquet request body in a separate process with limited memory and CPU time.

A few bytes of Parquet can expand to gigabytes, and pyarrow crashes on some malformed files. The subprocess runs this
file, which therefore imports only pyarrow.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

MAX_OBJECTS = 300_000
MAX_LEAVES = 1000  # columns, including the fields of structs
MAX_BYTES = 2**28  # size of the uncompressed table
READING_BYTES = 2**31
READING_SECONDS = 10
_process_lock = threading.Lock()


def check(body: bytes, max_rows: int | None = None, keep_on: Callable[[], None] = lambda: None) -> str | None:
    """Return the reason to reject a Parquet file, or None.

    A file is rejected if it has duplicate column names, is too large uncompressed, or crashes its reader. Malformed
    files pass; the reader reports them.

    Args:
        body: content of the file.
        max_rows: largest number of rows.
        keep_on: called ten times a second. It may raise an exception to stop the check.
    """
    command = [sys.executable, "-P", __file__, str(max_rows or MAX_OBJECTS)]
    while not _process_lock.acquire(timeout=0.1):
        keep_on()
    try:
        code, output = _run(command, body, keep_on)
    finally:
        _process_lock.release()
    if code:
        limits = f"{READING_BYTES:,} bytes of memory and {READING_SECONDS} seconds of CPU time"
        return f"expected a Parquet file that can be read within {limits}, got one that cannot"
    return output.decode() or None


def _run(command: list[str], body: bytes, keep_on: Callable[[], None]) -> tuple[int, bytes]:
    """Return the exit code and the output of a process, which is killed if `keep_on` raises."""
    output: list[bytes] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        # In a thread, since `communicate` with a timeout cannot be resumed while its input is being written.
        talking = threading.Thread(target=lambda: output.append(process.communicate(body)[0]))
        talking.start()
        try:
            while talking.is_alive():
                talking.join(0.1)
                keep_on()
        except BaseException:
            process.kill()
            raise
        finally:
            talking.join()
    return process.returncode, output[0]


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


def _reason_to_reject(file: pa.Buffer, max_rows: int) -> str:
    """Read the file; return the reason to reject it, or an empty string."""
    try:
        described = pq.read_metadata(pa.BufferReader(file))
        if described.num_rows > max_rows:
            return f"expected at most {max_rows:,} rows a request, got {described.num_rows:,}: send several requests"
        if described.num_columns > MAX_LEAVES:
            return f"expected a Parquet file of at most {MAX_LEAVES:,} columns, got {described.num_columns:,}"
        names = pq.read_schema(pa.BufferReader(file)).names
        if len(set(names)) < len(names):
            return "expected a Parquet file whose column names are unique, got the same name twice"
        table = pq.read_table(pa.BufferReader(file), use_threads=False)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError):  # pyarrow's errors for a malformed file
        return ""
    if table.nbytes > MAX_BYTES:
        return f"expected a Parquet file of at most {MAX_BYTES:,} uncompressed bytes, got {table.nbytes:,}"
    count = table.num_rows + sum(objects(chunk) for column in table.columns for chunk in column.chunks)
    if count > MAX_OBJECTS:
        return f"expected a Parquet file of at most {MAX_OBJECTS:,} rows, texts and lists, got {count:,}"
    return ""


if __name__ == "__main__":
    os.nice(10)  # requests in the endpoint's own process go first
    # The memory limit should count only the table, not thread stacks or memory reserved by another allocator.
    pa.set_memory_pool(pa.system_memory_pool())
    resource.setrlimit(resource.RLIMIT_DATA, (READING_BYTES, READING_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (READING_SECONDS, READING_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(_reason_to_reject(pa.py_buffer(sys.stdin.buffer.read()), int(sys.argv[1])))
