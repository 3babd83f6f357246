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

# Memory limits of the process, which the memory budget holds meanwhile. A file that needs more is read again with the
# next limit.
READING_BYTES = (2**28, 2**30)
COPIES = 3  # Arrow's table, pandas', and the texts in it
_turns = Turns(1)  # one process at a time


def check(body: bytes, max_rows: int | None, call: Call) -> None:
    """Accept or reject a Parquet file, and hold the memory that its table takes until the call is closed.

    A malformed file is accepted; the reader of tables reports it.

    Args:
        body: the file.
        max_rows: largest number of rows; None for no limit.
        call: the call that the file belongs to.

    Raises:
        BadRequest: the file has duplicate column names, is too large uncompressed, or crashes its reader.
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
    """Return what `parquet_reader.examine` returns of a body, in at most as many processes as READING_BYTES has."""
    for nbytes in READING_BYTES:
        command = [sys.executable, "-P", parquet_reader.__file__, str(max_rows), str(nbytes)]
        with call.hold(nbytes):
            code, output = _run(command, body, call.check)
        if code == 0:
            reason, size = json.loads(output)
            return str(reason), int(size)
        if code == -signal.SIGXCPU:
            break
    if code == -signal.SIGKILL:  # by somebody else, such as the system when its memory is short
        raise Overloaded(OUT_OF_MEMORY)
    limits = f"{READING_BYTES[-1]:,} bytes of memory and {parquet_reader.READING_SECONDS} seconds of CPU time"
    return f"expected a Parquet file that can be read within {limits}, got one that cannot", 0


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
