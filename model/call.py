"""The context of one call: whether its client still waits, and how long each stage of the work takes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, TypeVar

from .errors import ClientDisconnected

Result = TypeVar("Result")
StageTimer = Callable[[str], AbstractContextManager[Any]]


class Call:
    """Cancellation and stage timing of one request, passed explicitly to every step that works for it.

    Args:
        time_stage: returns a context manager for the name of a stage: fetch, decode, encode, prompt, mask, render.
    """

    def __init__(self, time_stage: StageTimer = nullcontext) -> None:
        self._time_stage = time_stage
        self._futures: set[Future[Any]] = set()
        self._cancelled = False
        self._lock = Lock()

    def cancel(self) -> None:
        """Abandon the call: queued work is dropped, and the next `check` or `stage` raises ClientDisconnected."""
        with self._lock:
            self._cancelled, futures = True, list(self._futures)
        for future in futures:
            future.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the call is abandoned."""
        return self._cancelled

    def check(self) -> None:
        """Raise ClientDisconnected if the call is cancelled."""
        if self._cancelled:
            raise ClientDisconnected

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Return the timer of a stage. Raises ClientDisconnected if the call is cancelled."""
        self.check()
        return self._time_stage(name)

    def wait(self, future: Future[Result]) -> Result:
        """Return the result of queued work. Raises ClientDisconnected if the call is cancelled meanwhile."""
        with self._lock:
            self._futures.add(future)
            cancelled = self._cancelled
        try:
            if cancelled:
                future.cancel()
            return future.result()
        except CancelledError:
            raise ClientDisconnected from None
        finally:
            with self._lock:
                self._futures.discard(future)


UNTRACKED = Call()  # the call of library users: never cancelled, not timed
