"""Control how work on a CPU is split among threads.

There are two ways to use several cores. Torch can split each operator among threads ("operator threads"), or each of
several batches can run in a thread of its own. For the decoder's many small operators, a thread per batch is faster,
because no thread waits for another one between two operators.

Operator threads must not outnumber the cores, and sleeping threads count too. If there are more, OpenMP puts all of
them to sleep after every operator, which makes small operators two to three times slower. Therefore:

- In a library or a command, every thread that calls the model splits its operators. This is torch's default.
- In the endpoint, only the thread that encodes images splits operators. The endpoint's main function calls
  `configure(1)` first, which stops splitting in all threads. The encoder's thread then calls
  `configure_current_thread(thread_count())`.

Importing this module neither sets nor reads a number of threads.
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
    """Return the number of threads to use: the number of torch's operator threads at the first call.

    `configure` and `configure_current_thread` call this function too, so later changes do not affect the result.
    Torch's initial number is OMP_NUM_THREADS or the number of cores, unless `torch.set_num_threads` was called before.
    """
    return torch.get_num_threads()


def configure(operator_threads: int) -> None:
    """Set the number of operator threads for the calling thread and for all threads started later.

    The setting changes neither `thread_count` nor threads that call `configure_current_thread`. A process in which many
    threads call the model calls `configure(1)` in its main function.

    Args:
        operator_threads: number of threads among which torch splits each operator.
    """
    thread_count()  # before torch's number changes
    torch.set_num_threads(operator_threads)


def configure_current_thread(operator_threads: int) -> None:
    """Set the number of operator threads for the current thread only.

    Call this function in a new thread before the thread calls any operator.

    Args:
        operator_threads: number of threads among which torch splits each operator that this thread calls.
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
    return ThreadPoolExecutor(thread_count(), "model", configure_current_thread, (1,))


def map_parallel(run: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call `run` with each item, in up to `thread_count` threads at the same time.

    Args:
        run: the function. It must not call `map_parallel` itself, which could wait forever for a free thread.
        items: arguments of the calls.

    Returns:
        The results, in the order of the items.

    Example:
        >>> map_parallel(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    return list(_pool().map(run, items))
