"""Limit how many threads compute or hold a decoded image, and share this limit fairly between tenants and requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from .call import Owner
from .fair_queue import FairQueue

CHECK_SECONDS = 0.1  # time between two calls of `check` while a thread waits


class Turns:
    """A semaphore whose waiting threads are served in the order of a FairQueue. Safe to share between threads.

    A turn is the permission to compute, or to keep a decoded image. A thread holds a turn to compute for one stage of
    its request. After the stage, the next waiting thread gets the turn. Without this limit, all requests that render
    masks compete for Python's global lock, and a request for a single mask has to wait for all other requests.

    If `per_tenant` is less than `count`, one tenant cannot hold all turns. So a request of another tenant starts at
    once.

    Args:
        count: number of turns, which is the largest number of threads that compute at the same time.
        per_tenant: largest number of turns that one tenant holds at the same time; by default `count`.

    Example:
        >>> turns = Turns(2, per_tenant=1)
        >>> with turns.turn(Owner("tenant", "request")):
        ...     print("computing")
        computing
    """

    def __init__(self, count: int, per_tenant: int | None = None) -> None:
        self._free, self._per_tenant = count, per_tenant or count
        self._held: Counter[str] = Counter()
        self._waiting: FairQueue[_Waiter] = FairQueue(2**31)
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
            self._release(owner.tenant)

    def _take(self, owner: Owner, check: Callable[[], None]) -> None:
        waiter = _Waiter(owner.tenant)
        with self._lock:
            self._waiting.put(waiter, owner)
            self._hand_out()
        try:
            while not waiter.event.wait(CHECK_SECONDS):
                check()
        except BaseException:
            self._give_up(waiter)
            raise

    def _give_up(self, waiter: _Waiter) -> None:
        """Stop waiting. If the waiter has received a turn in the meantime, release the turn."""
        with self._lock:
            waiter.gave_up = True
            has_turn = waiter.event.is_set()
        if has_turn:
            self._release(waiter.tenant)

    def _release(self, tenant: str) -> None:
        with self._lock:
            self._free += 1
            self._held[tenant] -= 1
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free turns to waiting threads. The caller holds the lock."""
        while self._free:
            at_limit = {tenant for tenant, held in self._held.items() if held >= self._per_tenant}
            try:
                waiter = self._waiting.get(skipped=at_limit)
            except IndexError:
                break
            if not waiter.gave_up:
                self._free -= 1
                self._held[waiter.tenant] += 1
                waiter.event.set()
        self._held += Counter()  # drops tenants without a turn


class _Waiter:
    """A thread that waits for a turn. `event` is set when the thread gets a turn."""

    def __init__(self, tenant: str) -> None:
        self.tenant, self.event, self.gave_up = tenant, Event(), False
