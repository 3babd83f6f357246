"""The context of one request: cancellation, deadline, memory budget and stage timing."""

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
    """The tenant and the request for which work is done. Queues share capacity fairly between owners.

    Attributes:
        tenant: id of the tenant. A tenant is the holder of one API key; the id is empty if the endpoint has no keys.
        request: id of the request among those of the tenant.
    """

    tenant: str = ""
    request: str = ""


NOBODY = Owner()


class Call:
    """The context of one request. Every function that works for the request receives it as an argument.

    Args:
        time_stage: returns a context manager that times a stage. Stages are parse, fetch, decode, encode, detect,
            prompt, mask, render.
        owner: the owner that queues see, for fair scheduling.
        seconds: time limit in seconds, from now on; None for no limit.
        max_answer_bytes: maximum size of the response in bytes; None for no limit. Intermediate results count too, if
            their size grows with the size of the response.
        memory: memory budget that all requests share.
        piece_seconds: target duration of one piece of divisible work, such as a batch of prompts. Between two pieces,
            other requests get their turn. None always uses the largest pieces.

    Example:
        >>> call = Call()
        >>> call.cancel()
        >>> call.check()
        Traceback (most recent call last):
        sam_endpoint.model.errors.ClientDisconnected: the client disconnected
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
        self._piece_seconds, self._piece_size = piece_seconds, FIRST_PIECE
        self._futures: set[Future[Any]] = set()
        self._cancelled = self._closed = False
        self._lock = Lock()

    def cancel(self) -> None:
        """Cancel the request. Queued work is dropped, and the next `check` or `stage` raises ClientDisconnected."""
        with self._lock:
            self._cancelled, futures = True, list(self._futures)
        for future in futures:
            future.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the request is cancelled."""
        return self._cancelled

    def check(self) -> None:
        """Raise an exception if the request must stop.

        Raises:
            ClientDisconnected: the request was cancelled.
            DeadlineExceeded: the time limit has passed.
        """
        if self._cancelled:
            raise ClientDisconnected
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise DeadlineExceeded(self._seconds or 0)

    def restart(self) -> None:
        """Start the time limit anew. A response that is sent in pieces has the time limit for each piece."""
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds

    def stage(self, name: str, count: int = 1) -> AbstractContextManager[Any]:
        """Return a context manager that times a stage. Raises the exceptions of `check`.

        Args:
            name: name of the stage.
            count: number of items that the stage works on, such as prompts.
        """
        self.check()
        return self._time_stage(name)

    def wait(self, future: Future[Result]) -> Result:
        """Wait for queued work and return its result.

        Raises the exceptions of `check`, also while waiting, and the exception of the work itself.
        """
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
            # A future refers to its error, and the error to this frame. If the frame still referred to the future, the
            # work would stay in memory until a garbage collection.
            del future

    def pieces(self, count: int, largest: int) -> Iterator[slice]:
        """Divide work into pieces.

        With `piece_seconds`, the size of the pieces adapts to the time that each piece takes, including time in queues.
        Under load the pieces shrink, so other requests wait for a short piece rather than for the whole request. The
        next call of `pieces` begins with the size that the last one ended with.

        Args:
            count: number of items of work.
            largest: maximum number of items in a piece.

        Yields:
            The slice of each piece. Raises the exceptions of `check` before each piece.

        Example:
            >>> list(Call().pieces(5, 2))
            [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
        """
        start, size = 0, largest if self._piece_seconds is None else min(largest, self._piece_size)
        while start < count:
            self.check()
            began = time.monotonic()
            yield slice(start, start + size)
            items = min(size, count - start)
            start += size
            if self._piece_seconds is not None:
                seconds = time.monotonic() - began
                if seconds > self._piece_seconds:
                    size = max(1, items // 2)
                elif seconds < self._piece_seconds / 2 and items == size:
                    size = min(largest, size * 2)
                self._piece_size = size

    def count_answer(self, nbytes: int) -> None:
        """Count bytes of the response, and hold memory for them until `close`.

        Raises:
            BadRequest: the response is larger than `max_answer_bytes`.
            Overloaded: as `MemoryBudget.hold`.
        """
        if self._max_answer_bytes is None:
            return
        self.keep(ANSWER_COPIES * nbytes)
        with self._lock:
            self._answer_bytes += nbytes
            too_large = self._answer_bytes > self._max_answer_bytes
        if too_large:
            raise BadRequest(
                f"expected a response of at most {self._max_answer_bytes:,} bytes, got a larger one: send fewer rows "
                "or prompts, lower points_per_side, raise the thresholds, or leave return_logits out"
            )

    def hold(self, nbytes: int) -> AbstractContextManager[None]:
        """Return a context manager that holds bytes of the memory budget. Raises as `MemoryBudget.hold`."""
        return self._memory.hold(nbytes, self.check, self.owner.tenant)

    def keep(self, nbytes: int) -> None:
        """Hold bytes of the memory budget until `close`. Raises the exceptions of `MemoryBudget.hold`."""
        self._memory.take(nbytes, self.check, self.owner.tenant)
        with self._lock:
            if not self._closed:
                self._kept += nbytes
                return
        self._memory.release(nbytes, self.owner.tenant)
        raise ClientDisconnected

    def close(self) -> None:
        """Release the bytes that `keep` holds. Call this once the response is sent or abandoned."""
        with self._lock:
            self._closed, kept, self._kept = True, self._kept, 0
        self._memory.release(kept, self.owner.tenant)


ANSWER_COPIES = 2  # copies of a response in memory: its parts, and its text
FIRST_PIECE = 8  # items in the first piece of a request with `piece_seconds`
UNTRACKED = Call()  # the default for library users: never cancelled, without limits, not timed
