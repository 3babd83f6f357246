"""Threads of one process that each use torch in their own way."""

from __future__ import annotations

import subprocess
import sys
import threading

import torch

from sam_endpoint.model import threads
from tests.conftest import ROOT


def count_in_a_thread(divided: int | None = None) -> int:
    """Return the number of threads that divide an operator in a new thread, which calls `divide` first."""
    counts = []

    def work() -> None:
        if divided is not None:
            threads.configure_current_thread(divided)
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return counts[0]


def test_a_thread_divides_its_own_operators_only() -> None:
    here, elsewhere = torch.get_num_threads(), count_in_a_thread()
    assert count_in_a_thread(3) == 3
    assert torch.get_num_threads() == here
    assert count_in_a_thread() == elsewhere


def test_each_answers_in_order_on_threads_of_one_operator_thread() -> None:
    def work(number: int) -> tuple[int, int]:
        return number * number, torch.get_num_threads()

    assert threads.map_parallel(work, range(9)) == [(number * number, 1) for number in range(9)]


# The endpoint's way: torch's number is 3 at first, operators are divided in one thread only.
CONFIGURED = """
import threading
import torch
from sam_endpoint.model import threads

def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]

def encode():
    threads.configure_current_thread(threads.thread_count())
    return torch.get_num_threads()

torch.set_num_threads(3)
for _ in range(2):
    threads.configure(1)
    assert torch.get_num_threads() == in_a_thread(torch.get_num_threads) == 1
    assert threads.thread_count() == in_a_thread(threads.thread_count) == in_a_thread(encode) == 3
workers = threads.map_parallel(lambda _: threading.current_thread().name, range(100))
assert len(set(workers)) <= 3 and set(threads.map_parallel(lambda _: torch.get_num_threads(), range(9))) == {1}
assert in_a_thread(torch.get_num_threads) == 1
"""


def test_a_configured_process_divides_operators_in_chosen_threads_only() -> None:
    done = subprocess.run([sys.executable, "-c", CONFIGURED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The first call comes from a thread that divides nothing.
DIVIDED = """
import threading
import torch
from sam_endpoint.model import threads

torch.set_num_threads(3)
thread = threading.Thread(target=threads.configure_current_thread, args=(1,))
thread.start()
thread.join()
assert threads.thread_count() == 3
counts = []
def work():
    threads.configure_current_thread(1)
    counts.append(threads.thread_count())
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert counts == [3]
"""


def test_the_number_of_threads_is_read_before_a_thread_changes_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", DIVIDED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
