"""Retry a batch in halves when memory is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from .errors import OUT_OF_MEMORY, Overloaded, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


def halve_on_out_of_memory(run: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
    """Run a batch. If there is too little memory, run each half of the batch in the same way, one after the other.

    Args:
        run: computes one result per item.
        items: the batch.

    Raises:
        Overloaded: there is too little memory for a single item.
    """
    try:
        return run(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Inside the except block, the traceback would keep the memory of the failed call. So the retry is outside.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(items) == 1:
        raise Overloaded(OUT_OF_MEMORY)
    middle = len(items) // 2
    return halve_on_out_of_memory(run, items[:middle]) + halve_on_out_of_memory(run, items[middle:])
