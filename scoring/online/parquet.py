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
from sam_endpoint.scoring.online import parquet_reader
from sam_endpoint.scoring.online.turns import Turns

# Memory limits of the process. If a file needs more memory than the first limit, a process with the next limit reads it
# again. While a process runs, the call holds as much memory in the memory budget.
READING_BYTES = (2**28, 2**30)
COPIES = 3  # copies of a table in memory: Arrow's table, pandas' table, and the texts in pandas' table
_turns = Turns(1)  # one process at a time


def check(body: bytes, max_rows: int | None, call: Call) -> None:
    """Accept or reject a Parquet file.

    If the file is accepted, the call keeps the memory for its table in the memory budget until the call is closed. A
    malformed file is accepted too, because the parser of tables reports it later.

    Args:
        body: the file.
        max_rows: largest number of rows; None for no limit.
        call: the call that the file belongs to.

    Raises:
        BadRequest: the file has duplicate column names, has too many rows, columns or values, or is too large
            uncompressed; or the separate process crashes or exceeds its limits.
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
    """Run `parquet_reader.examine` on a body and return its result.

    It runs in a process with the first limit of READING_BYTES and, if that process fails, in one with the next limit.
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
    return f"expected a Parquet file that can be read within {limits}, got one that cannot", 0


def _run(command: list[str], body: bytes, check: Callable[[], None]) -> tuple[int, bytes]:
    """Run a process and return its exit code and its output.

    `check` is called about ten times a second. If it raises an exception, the process is killed.
    """
    output: list[bytes] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        # `communicate` runs in a thread. With a timeout instead, it could not be resumed while it writes the input.
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
