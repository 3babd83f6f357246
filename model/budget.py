"""Limit the cost of requests: limits per request that are checked before the work, and a shared memory budget."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition

from .errors import OUT_OF_MEMORY, BadRequest, Overloaded


@dataclass(frozen=True)
class RequestLimits:
    """Limits on one request, for all its rows together. None means no limit.

    Attributes:
        rows: maximum number of rows.
        prompts: maximum number of prompts.
        points: maximum number of grid points for automatic mask generation, in all crops.
        answer_bytes: maximum size of the response in bytes.
        values: maximum number of lists and numbers in the JSON texts of all cells.
        frames: maximum number of frames of a video.
        objects: maximum number of objects that are tracked through a video.
        concepts: maximum number of concepts that a detector searches for.

    Example:
        >>> RequestLimits(rows=100).check_rows(101)
        Traceback (most recent call last):
        sam_endpoint.model.errors.BadRequest: expected at most 100 rows a request, got 101: send several requests
    """

    rows: int | None = None
    prompts: int | None = None
    points: int | None = None
    answer_bytes: int | None = None
    values: int | None = None
    frames: int | None = None
    objects: int | None = None
    concepts: int | None = None

    def check_objects(self, count: int) -> None:
        """Raise BadRequest if there are more than `objects` objects in a video."""
        if self.objects is not None and count > self.objects:
            raise BadRequest(
                f"expected at most {self.objects:,} objects in a video, got {count:,}: send several requests"
            )

    def check_values(self, count: int) -> None:
        """Raise BadRequest if the cells hold more than `values` lists and numbers."""
        if self.values is not None and count > self.values:
            raise BadRequest(
                f"expected at most {self.values:,} lists and numbers in the prompts of a request, got {count:,}: "
                "send several requests"
            )

    def check_rows(self, count: int) -> None:
        """Raise BadRequest if there are more than `rows` rows."""
        if self.rows is not None and count > self.rows:
            raise BadRequest(f"expected at most {self.rows:,} rows a request, got {count:,}: send several requests")

    def check_prompts(self, count: int) -> None:
        """Raise BadRequest if there are more than `prompts` prompts."""
        if self.prompts is not None and count > self.prompts:
            raise BadRequest(
                f"expected at most {self.prompts:,} prompts in all rows of a request, got {count:,}: send several "
                "requests"
            )

    def check_concepts(self, count: int) -> None:
        """Raise BadRequest if a detector has to search for more than `concepts` concepts."""
        if self.concepts is not None and count > self.concepts:
            raise BadRequest(
                f"expected at most {self.concepts:,} texts and other concepts in all rows of a request, got {count:,}: "
                "send several requests"
            )

    def check_points(self, rows: int, points: int) -> None:
        """Raise BadRequest if there are more than `self.points` grid points.

        Args:
            rows: number of rows without prompts.
            points: number of grid points for each of these rows.
        """
        if self.points is not None and rows * points > self.points:
            raise BadRequest(
                f"expected at most {self.points:,} points a request, got {rows:,} rows without prompts, each with "
                f"{points:,} points: lower points_per_side or crop_n_layers, raise crop_n_points_downscale_factor, or "
                "send fewer rows"
            )

    def check_logits(self, count: int, nbytes: int) -> None:
        """Raise BadRequest if the logits of `count` masks, of `nbytes` bytes each, exceed `answer_bytes`."""
        if self.answer_bytes is not None and count * nbytes > self.answer_bytes:
            raise BadRequest(
                f"expected a response of at most {self.answer_bytes:,} bytes, got {count:,} masks with logits of "
                f"{nbytes:,} bytes each: leave return_logits out, or send fewer prompts"
            )


NO_LIMITS = RequestLimits()


class MemoryBudget:
    """A limit on the bytes that all requests hold at the same time. Safe to share between threads.

    Args:
        nbytes: the limit in bytes; None for no limit.
        seconds: maximum wait in seconds for other requests to release bytes.
        per_tenant: limit in bytes for all requests of one tenant (the holder of one API key) together; None for no such
            limit. A tenant that holds no bytes may exceed this limit with a single request.

    Attributes:
        held: number of bytes that are held now.

    Example:
        >>> budget = MemoryBudget(100)
        >>> with budget.hold(60):
        ...     budget.held, budget.try_take(60)
        (60, False)
        >>> budget.held
        0
    """

    def __init__(self, nbytes: int | None = None, seconds: float = 10.0, per_tenant: int | None = None) -> None:
        self.nbytes, self.seconds, self.per_tenant = nbytes, seconds, per_tenant
        self.held = 0
        self._by_tenant: Counter[str] = Counter()
        self._released = Condition()

    @contextmanager
    def hold(self, nbytes: int, check: Callable[[], None] = lambda: None, tenant: str = "") -> Iterator[None]:
        """Hold bytes during a `with` block.

        Args:
            nbytes: number of bytes.
            check: function that is called repeatedly while waiting. An exception from it ends the wait.
            tenant: tenant id of the request.

        Raises:
            BadRequest: `nbytes` exceeds the whole budget.
            Overloaded: other requests do not release enough bytes within `seconds`.
        """
        self.take(nbytes, check, tenant)
        try:
            yield
        finally:
            self.release(nbytes, tenant)

    def take(self, nbytes: int, check: Callable[[], None] = lambda: None, tenant: str = "") -> None:
        """Hold bytes until `release` is called. The arguments and exceptions are the same as for `hold`."""
        if self.nbytes is None:
            return
        if nbytes > self.nbytes:
            raise BadRequest(
                f"expected a request that needs at most {self.nbytes:,} bytes of memory, got {nbytes:,}: send several "
                "requests"
            )
        deadline = time.monotonic() + self.seconds
        with self._released:
            while not self._try_take(nbytes, tenant):
                check()
                if time.monotonic() >= deadline:
                    raise Overloaded(OUT_OF_MEMORY)
                self._released.wait(0.1)

    def try_take(self, nbytes: int, tenant: str = "") -> bool:
        """Hold bytes like `take`, but do not wait. Return False if too few bytes are available."""
        if self.nbytes is None:
            return True
        with self._released:
            return self._try_take(nbytes, tenant)

    def _try_take(self, nbytes: int, tenant: str) -> bool:
        assert self.nbytes is not None
        held = self._by_tenant[tenant]
        if self.held + nbytes > self.nbytes or (held and self.per_tenant and held + nbytes > self.per_tenant):
            return False
        self.held += nbytes
        self._by_tenant[tenant] += nbytes
        return True

    def release(self, nbytes: int, tenant: str = "") -> None:
        """Release bytes. An earlier call of `take` or `try_take` holds these bytes."""
        if self.nbytes is not None:
            with self._released:
                self.held -= nbytes
                self._by_tenant[tenant] -= nbytes
                self._by_tenant += Counter()  # drops tenants that hold nothing
                self._released.notify_all()


UNLIMITED = MemoryBudget()
