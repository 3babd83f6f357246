"""A limit on the threads that compute at one time, shared fairly between tenants and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from sam_endpoint.model.call import Owner
from sam_endpoint.scoring.online.fair_queue import FairQueue

CHECK_SECONDS = 0.1


class Turns:
    """Turns at the processors. Threads beyond the limit wait in the order of a FairQueue.

    Without the limit, every request that renders masks competes for Python's lock, and the only mask of a click waits
    for each of them. Safe to share between threads.

    Args:
        count: largest number of threads that have a turn.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: FairQueue[Event] = FairQueue(2**31)
        self._lock = Lock()

    @contextmanager
    def turn(self, owner: Owner, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait for a turn, and hold it within a block.

        Args:
            owner: for whom the thread works.
            check: called while waiting; may raise to give up.
        """
        self._take(owner, check)
        try:
            yield
        finally:
            self._pass_on()

    def _take(self, owner: Owner, check: Callable[[], None]) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = Event()
            self._waiting.put(mine, owner)
        while not mine.wait(CHECK_SECONDS):
            try:
                check()
            except BaseException:
                self._give_up(mine)
                raise

    def _give_up(self, mine: Event) -> None:
        """Leave the queue, or pass on the turn that came meanwhile."""
        with self._lock:
            came = mine.is_set()
            mine.set()  # the queue drops it when its turn comes
        if came:
            self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            while len(self._waiting):
                following = self._waiting.get()
                if not following.is_set():
                    following.set()
                    return
            self._free += 1
