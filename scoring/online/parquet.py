"""Validate a Parquet request body in a separate process with limited memory and CPU time.

A few bytes of Parquet can expand to gigabytes, and pyarrow crashes on some malformed files.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import OUT_OF_MEMORY, BadRequest, Overloaded
from sam_endpoint.model.turns import Turns
from sam_endpoint.scoring.online import parquet_reader

# Memory limits of the process, in bytes. If the process fails with the first limit, another process with the next limit
# reads the file. While a process runs, the call holds the bytes of the process's limit in the memory budget.
READING_BYTES = (2**28, 2**30)
COPIES = 3  # copies of a table in memory: Arrow's table, pandas' table, and the texts in pandas' table
_turns = Turns(1)  # one process at a time


def check(body: bytes, max_rows: int | None, call: Call) -> None:
    """Accept or reject a Parquet file.

    If the function accepts the file, the call holds the bytes of the file's table in the memory budget until the call
    is closed. The function accepts a malformed file too, because the parser of tables reports the error later.

    Args:
        body: the file.
        max_rows: largest number of rows; None for no limit.
        call: the call that the file belongs to.

    Raises:
        BadRequest: the file has duplicate column names. Or it has too many rows, columns, values or uncompressed bytes.
            Or the separate process crashes or exceeds its limits.
        Overloaded: memory is short.
        ClientDisconnected: the call was cancelled.
        DeadlineExceeded: the call's time is over.
    """
    with _turns.turn(call.owner, call.check):
        reason, nbytes = _examine(body, max_rows or parquet_reader.MAX_OBJECTS, call)
    if reason:
        raise BadRequest(reason)
    call.keep(COPIES * nbytes)


def _examine(body: bytes, max_rows: int, call: Call) -> tuple[str, int]:
    """Run `parquet_reader.examine` on a body in a separate process, and return its result.

    The first process gets the first limit of READING_BYTES. If this process fails, a second process gets the next
    limit.
    """
    for nbytes in READING_BYTES:
        command = [sys.executable, "-P", parquet_reader.__file__, str(max_rows), str(nbytes)]
        with call.hold(nbytes):
            code, output = _run(command, body, call.check)
        if code == 0:
            reason, size = json.loads(output)
            return str(reason), int(size)
        if code == -signal.SIGXCPU:
            break
    if code == -signal.SIGKILL:  # killed from outside, for example by the system if memory is short
        raise Overloaded(OUT_OF_MEMORY)
    limits = f"{READING_BYTES[-1]:,} bytes of memory and {parquet_reader.READING_SECONDS} seconds of CPU time"
    return f"expected a Parquet file that needs at most {limits} to read, got a file that needs more or is broken", 0


def _run(command: list[str], body: bytes, check: Callable[[], None]) -> tuple[int, bytes]:
    """Run a process and return its exit code and its output.

    `check` is called about ten times a second. If it raises an exception, the process is killed.
    """
    output: list[bytes] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        # `communicate` runs in a thread. With a timeout instead, writing the input could not be resumed.
        talking = threading.Thread(target=lambda: output.append(process.communicate(body)[0]))
        talking.start()
        try:
            while talking.is_alive():
                talking.join(0.1)
                check()
        except BaseException:
            process.kill()
            raise
        finally:
            talking.join()
    return process.returncode, output[0]
