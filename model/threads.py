"""Threads for work on a CPU.

Torch can divide each operator among threads, or each of several batches can have a thread of its own. For the decoder's
many small operators the second is faster, since no thread waits for another between two operators.

The threads that divide operators must not outnumber the cores, sleeping threads included: otherwise OpenMP puts all of
them to sleep after every operator, which makes small operators two to three times slower. So as few threads as possible
divide operators:

- In a library or a command, the threads that call the model do, as torch does by default.
- In the endpoint, only the thread that encodes images does. The endpoint's main function calls `configure(1)` first, so
  that torch does not divide operators in any thread, and the encoder's thread calls `divide(thread_count())`.

Nothing is set or read when this module is imported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()


@cache
def thread_count() -> int:
    """Return the number of threads to use: torch's number at the first call, which `configure` and `divide` make too.

    Torch's number is OMP_NUM_THREADS or the number of cores, unless `torch.set_num_threads` was called before.
    """
    return torch.get_num_threads()


def configure(operator_threads: int) -> None:
    """Set the number of threads that divide each operator, for the calling thread and all threads started later.

    `thread_count` stays as it is, and so do threads that call `divide`. Processes with many threads that call the model
    call `configure(1)` in their main function.
    """
    thread_count()  # before torch's number changes
    torch.set_num_threads(operator_threads)


def divide(operator_threads: int) -> None:
    """Set the number of threads that divide each operator called from the current thread, and from no other thread.

    Call this function first in a thread, before any operator.
    """
    thread_count()  # before torch's number changes
    with _lock:
        default = torch.get_num_threads()  # this call also makes torch initialise the current thread's own number
        torch.set_num_threads(operator_threads)
        # The call above also changed the number for threads started later, which this short-lived thread sets back.
        restorer = threading.Thread(target=torch.set_num_threads, args=(default,))
        restorer.start()
        restorer.join()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), "model", divide, (1,))


def each(run: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call `run` with each item, on several threads at a time. Do not call this function from within `run`.

    Returns:
        The results, in the order of the items.
    """
    return list(_pool().map(run, items))
