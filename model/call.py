"""The context of one call: whether its client still waits, and what its work may cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from .budget import UNLIMITED, MemoryBudget
from .errors import BadRequest, ClientDisconnected, DeadlineExceeded

Result = TypeVar("Result")
StageTimer = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Owner:
    """For whom work is done.

    Attributes:
        tenant: the tenant of the request's API key.
        request: tells the request from the tenant's other requests.
    """

    tenant: str = ""
    request: str = ""


NOBODY = Owner()


class Call:
    """Cancellation, budget and stage timing of one request, passed explicitly to every step that works for it.

    Args:
        time_stage: returns a context manager for a stage: parse, fetch, decode, encode, prompt, mask or render.
        owner: whose turn it is where several calls wait.
        seconds: time limit, from now on.
        max_answer_bytes: largest answer; intermediate results that grow with it count too.
        memory: budget of the memory that calls hold together.
        piece_seconds: largest time of a piece of divisible work, after which others take their turn; None works in
            pieces of the largest size.
    """

    def __init__(
        self,
        time_stage: StageTimer = nullcontext,
        *,
        owner: Owner = NOBODY,
        seconds: float | None = None,
        max_answer_bytes: int | None = None,
        memory: MemoryBudget = UNLIMITED,
        piece_seconds: float | None = None,
    ) -> None:
        self.owner = owner
        self._time_stage = time_stage
        self._seconds = seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._max_answer_bytes = max_answer_bytes
        self._answer_bytes = 0
        self._memory, self._kept = memory, 0
        self._piece_seconds = piece_seconds
        self._futures: set[Future[Any]] = set()
        self._cancelled = self._closed = False
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
        """Raise ClientDisconnected if the call is cancelled, DeadlineExceeded if its time is over."""
        if self._cancelled:
            raise ClientDisconnected
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise DeadlineExceeded(self._seconds or 0)

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Return the timer of a stage. Raises as `check` does."""
        self.check()
        return self._time_stage(name)

    def wait(self, future: Future[Result]) -> Result:
        """Return the result of queued work. Raises as `check` does, also while it waits."""
        with self._lock:
            self._futures.add(future)
            cancelled = self._cancelled
        try:
            if cancelled:
                future.cancel()
            return future.result(None if self._deadline is None else max(0, self._deadline - time.monotonic()))
        except CancelledError:
            raise ClientDisconnected from None
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise DeadlineExceeded(self._seconds or 0) from None
        finally:
            with self._lock:
                self._futures.discard(future)

    def pieces(self, count: int, largest: int) -> Iterator[slice]:
        """Yield slices of `count` items of divisible work, at most `largest` each. Raises as `check` does.

        With `piece_seconds` the slices adapt to the time that each takes, queues included: under load they shrink, so
        that other calls wait for a short piece and not for a whole request.
        """
        start, size = 0, largest if self._piece_seconds is None else min(largest, FIRST_PIECE)
        while start < count:
            self.check()
            began = time.monotonic()
            yield slice(start, start + size)
            start += size
            if self._piece_seconds is not None:
                seconds = time.monotonic() - began
                if seconds > self._piece_seconds:
                    size = max(1, size // 2)
                elif seconds < self._piece_seconds / 2:
                    size = min(largest, size * 2)

    def count_answer(self, nbytes: int) -> None:
        """Count bytes towards the answer. Raises BadRequest if there are more than `max_answer_bytes`."""
        if self._max_answer_bytes is None:
            return
        self.keep(ANSWER_COPIES * nbytes)
        with self._lock:
            self._answer_bytes += nbytes
            too_large = self._answer_bytes > self._max_answer_bytes
        if too_large:
            raise BadRequest(
                f"expected an answer of at most {self._max_answer_bytes:,} bytes, got a larger one: send fewer rows or "
                "prompts, lower points_per_side, raise the thresholds, or leave return_logits out"
            )

    def hold(self, nbytes: int) -> AbstractContextManager[None]:
        """Return a context that holds bytes of the memory budget. Raises as `MemoryBudget.hold` does."""
        return self._memory.hold(nbytes, self.check)

    def keep(self, nbytes: int) -> None:
        """Hold bytes of the memory budget until `close`. Raises as `MemoryBudget.hold` does."""
        self._memory.take(nbytes, self.check)
        with self._lock:
            if not self._closed:
                self._kept += nbytes
                return
        self._memory.release(nbytes)
        raise ClientDisconnected

    def close(self) -> None:
        """Release what the call keeps, once its answer is sent or abandoned."""
        with self._lock:
            self._closed, kept, self._kept = True, self._kept, 0
        self._memory.release(kept)


ANSWER_COPIES = 2  # the parts of an answer, and its text
FIRST_PIECE = 8
UNTRACKED = Call()  # the call of library users: never cancelled, without limits, not timed
