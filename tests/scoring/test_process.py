"""The settings that a command makes for its whole process."""

from __future__ import annotations

import pytest

from sam_endpoint.model import threads
from tests.conftest import run_code

CODE = """
import gc, sys

from sam_endpoint.scoring.process import configure_process

assert "torch" not in sys.modules and "transformers" not in sys.modules
configure_process({operator_threads})
assert gc.isenabled() and gc.get_freeze_count() > 100_000

import torch
from sam_endpoint.model import memory, threads

assert memory.keep_freed_memory.cache_info().misses == 1
print(torch.get_num_threads(), threads.thread_count())
frozen = gc.get_freeze_count()
configure_process({operator_threads})
assert gc.get_freeze_count() == frozen
print(torch.get_num_threads(), threads.thread_count())
"""


@pytest.mark.parametrize("operator_threads", [None, 1])
def test_configure_process_sets_threads_memory_and_garbage_collection_once(operator_threads: int | None) -> None:
    code = CODE.format(operator_threads=operator_threads)
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    count = threads.thread_count()  # this process has torch's default number of threads, too
    assert done.stdout.splitlines() == [f"{operator_threads or count} {count}"] * 2
