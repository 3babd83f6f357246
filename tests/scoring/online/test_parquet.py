"""The process that reads Parquet bodies: its memory is counted, and its end costs one request."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.model.call import Call
from sam_endpoint.model.errors import BadRequest, Overloaded
from sam_endpoint.scoring.online import parquet, parquet_reader


def packed(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


SMALL = packed(pa.table({"image": ["x"]}))
REPEATED = packed(pa.table({"image": ["y" * 1_200_000] * 200}))  # kilobytes that stand for 240 megabytes


def test_the_memory_of_reading_is_held_and_that_of_the_table_kept() -> None:
    budget = MemoryBudget(2**31)
    call = Call(memory=budget)
    held: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            held.append(budget.held)

    watching = threading.Thread(target=watch)
    watching.start()
    parquet.check(REPEATED, None, call)
    over.set()
    watching.join()
    assert set(parquet.READING_BYTES) <= set(held)  # the second process has more
    assert budget.held >= 3 * 200 * 1_200_000
    call.close()
    assert budget.held == 0


def test_a_file_that_needs_more_than_the_whole_budget_is_rejected() -> None:
    budget = MemoryBudget(2**29)
    parquet.check(SMALL, None, Call(memory=budget))
    with pytest.raises(BadRequest, match=r"needs at most 536,870,912 bytes of memory, got 1,073,741,824"):
        parquet.check(REPEATED, None, Call(memory=budget))


def test_a_file_waits_for_memory_and_is_then_refused() -> None:
    budget = MemoryBudget(2**29, seconds=0.2)
    with budget.hold(2**29), pytest.raises(Overloaded):
        parquet.check(SMALL, None, Call(memory=budget))


def readers() -> list[int]:
    """Return the process ids of this process's readers."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if b"parquet_reader" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_reader_is_started_again_once(kills: int) -> None:
    done = threading.Event()

    def kill() -> None:
        left = kills
        while left and not done.wait(0.01):
            for process in readers():
                os.kill(process, signal.SIGKILL)
                left -= 1
                while process in readers():
                    time.sleep(0.01)

    killing = threading.Thread(target=kill)
    killing.start()
    if kills == 1:
        parquet.check(SMALL, None, Call())
    else:
        with pytest.raises(Overloaded):
            parquet.check(SMALL, None, Call())
    done.set()
    killing.join()
    parquet.check(SMALL, None, Call())


def test_a_file_that_takes_too_long_is_the_clients_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    busy = tmp_path / "busy.py"
    code = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass\n"
    busy.write_text(code)
    monkeypatch.setattr(parquet_reader, "__file__", str(busy))
    with pytest.raises(BadRequest, match="10 seconds of CPU time"):
        parquet.check(SMALL, None, Call())
