"""Limit how many threads compute at the same time, and share this limit fairly between tenants and requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from sam_endpoint.model.call import Owner
from sam_endpoint.scoring.online.fair_queue import FairQueue

CHECK_SECONDS = 0.1  # time between two calls of `check` while a thread waits


class Turns:
    """A semaphore whose waiting threads are served in the order of a FairQueue. Safe to share between threads.

    A turn is the permission to compute. A thread holds its turn for one stage of its request and then passes it on to
    the next waiting thread. Without this limit, all requests that render masks compete for Python's global lock, and a
    request for a single mask has to wait for every one of them.

    Args:
        count: number of turns, which is the largest number of threads that compute at the same time.

    Example:
        >>> turns = Turns(1)
        >>> with turns.turn(Owner("tenant", "request")):
        ...     print("computing")
        computing
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: FairQueue[Event] = FairQueue(2**31)
        self._lock = Lock()

    @contextmanager
    def turn(self, owner: Owner, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait for a turn, and hold it until the `with` block ends.

        Args:
            owner: tenant and request for which the thread works.
            check: called about ten times a second while the thread waits. It may raise an exception to stop waiting.
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
        """Leave the queue. If the turn has been assigned in the meantime, pass it on."""
        with self._lock:
            came = mine.is_set()
            mine.set()  # `_pass_on` skips events that are set
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
