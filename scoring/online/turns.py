"""A limit on the threads that compute at one time, shared fairly between tenants and requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from sam_endpoint.model.call import Owner
from sam_endpoint.scoring.online.fair_queue import FairQueue

CHECK_SECONDS = 0.1


class Turns:
    """A limited number of turns at the processors, of which each tenant can hold only some at a time.

    Threads beyond the limits wait in the order of a FairQueue. Without limits, all requests that render masks compete
    for Python's global lock, and the single mask of a click waits for each of them. With a limit for each tenant, a
    click starts at once while another tenant uses all of its own turns. Safe to share between threads.

    Args:
        count: maximum number of threads that compute at the same time.
        per_tenant: maximum number of these threads that work for one tenant; by default `count`.
    """

    def __init__(self, count: int, per_tenant: int | None = None) -> None:
        self._free, self._per_tenant = count, per_tenant or count
        self._held: Counter[str] = Counter()
        self._waiting: FairQueue[_Waiter] = FairQueue(2**31)
        self._lock = Lock()

    @contextmanager
    def turn(self, owner: Owner, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Wait for a turn, and hold it within a block.

        Args:
            owner: tenant and request that the thread works for.
            check: called every 0.1 seconds while the thread waits; may raise to stop waiting.
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
        while not waiter.event.wait(CHECK_SECONDS):
            try:
                check()
            except BaseException:
                self._give_up(waiter)
                raise

    def _give_up(self, waiter: _Waiter) -> None:
        """Stop waiting; release the turn if it was handed out in the meantime."""
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
    """A thread that waits for a turn; `event` is set once it has one."""

    def __init__(self, tenant: str) -> None:
        self.tenant, self.event, self.gave_up = tenant, Event(), False
