"""Work side by side on a CPU.

Torch can divide each operator among threads, or several batches can each have a thread. For the decoder's many small
operators the second is faster: nobody waits for anybody between two of them. And threads that divide operators must
not outnumber the cores, sleeping ones included: OpenMP then puts all of them to sleep after every operator, which makes
small ones two to three times slower. So operators are divided in as few threads as can be: in whichever calls the model
in a library or a command, in the one that encodes in the endpoint.
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

COUNT = torch.get_num_threads()  # OMP_NUM_THREADS, else the cores
_lock = threading.Lock()


def divide(count: int) -> None:
    """Has `count` threads divide each operator that is called from this thread, and from no other. To be called first
    thing in a thread.

    `torch.set_num_threads` sets it for threads to come as well, so one that ends at once sets that back.
    """
    with _lock:
        usual = torch.get_num_threads()  # makes torch settle this thread's own count, which it would do later on
        torch.set_num_threads(count)
        back = threading.Thread(target=torch.set_num_threads, args=(usual,))
        back.start()
        back.join()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COUNT, "model", divide, (1,))


def each(run: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`run` of each item, in order, side by side. Not to be called from within `run`."""
    return list(_pool().map(run, items))
