"""The number of torch's operator threads, which each thread of a process sets for itself."""

from __future__ import annotations

import threading

import torch

from sam_endpoint.model import threads
from tests.conftest import run_code


def count_in_a_thread(divided: int | None = None) -> int:
    """Return the number of torch's operator threads in a new thread.

    Args:
        divided: number that the new thread passes to `threads.divide`. None: the thread does not call `divide`.
    """
    counts = []

    def work() -> None:
        if divided is not None:
            threads.configure_current_thread(divided)
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return counts[0]


def test_divide_changes_only_the_calling_thread() -> None:
    own_count, other_count = torch.get_num_threads(), count_in_a_thread()
    assert count_in_a_thread(3) == 3
    assert torch.get_num_threads() == own_count
    assert count_in_a_thread() == other_count


def test_each_returns_results_in_order_from_threads_with_one_operator_thread() -> None:
    def work(number: int) -> tuple[int, int]:
        return number * number, torch.get_num_threads()

    assert threads.map_parallel(work, range(9)) == [(number * number, 1) for number in range(9)]


# As in the endpoint: torch's number of threads is 3 at first, and only one thread divides its operators.
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


def test_in_a_configured_process_only_chosen_threads_divide_operators() -> None:
    done = run_code(CONFIGURED)
    assert done.returncode == 0, done.stderr


# The first call of `divide` comes from a thread that uses one operator thread.
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


def test_thread_count_is_read_before_a_thread_changes_its_own_number() -> None:
    done = run_code(DIVIDED)
    assert done.returncode == 0, done.stderr
