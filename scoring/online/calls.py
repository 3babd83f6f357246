"""Create the `Call` of each request, with the limits of the settings and with metrics of its stages."""

from __future__ import annotations

import itertools
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sam_endpoint.model import threads
from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.model.call import Call, Owner
from sam_endpoint.model.turns import Turns
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.settings import EndpointSettings

# Stages that compute in the request's own thread and therefore need a turn.
COMPUTING = ("parse", "decode", "mask", "render")
LARGE_BODY = 2**16  # bytes
# Parsing holds Python's global lock, for which a model waits several hundred times in a request. So if a model was used
# in the last RECENT seconds, the parsing of large bodies rests each time that it took more than MAX_BUSY seconds: for a
# multiple of the time, but at most for MAX_REST seconds.
MODEL_STAGES = ("encode", "detect", "prompt")
RECENT, MAX_BUSY, REST, MAX_REST = 0.5, 0.002, 4, 0.1
ACTIVE = 1.0  # seconds for which a tenant counts as active after the last stage of its requests
PIECE_SECONDS = 0.05  # requests divide their work into pieces of about this duration and take turns between them


class Calls:
    """Creates the `Call` of each request of one endpoint.

    A `Call` (see `model.call`) carries the cancellation, deadline, memory budget and stage timers of one request.

    Args:
        settings: limits of requests.
        metrics: receives the duration of stages and the memory in use.
        sleep: waits for some seconds.

    Attributes:
        memory: memory budget that all requests share.
        turns: limit on the number of requests that compute at the same time.
        large: turns of the requests with large bodies, which are parsed one at a time.
        model_used: time of the monotonic clock at which a request last used a model.
    """

    def __init__(
        self, settings: EndpointSettings, metrics: Metrics, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.settings, self.metrics, self.sleep = settings, metrics, sleep
        self.model_used = -math.inf
        self._last_stages: dict[str, float] = {}  # time of the last stage of each tenant
        # With several keys, a quarter of the memory is always left to the other tenants.
        several = len(settings.keys()) > 1
        self.memory = MemoryBudget(settings.memory, per_tenant=settings.memory * 3 // 4 if several else None)
        metrics.watch_memory(self.memory)
        # A tenant gets half of the processors: the decoder and the event loop compute too.
        processors = max(2, threads.thread_count())
        self.turns = Turns(processors, per_tenant=processors // 2)
        self.large = Turns(1)
        self._numbers = itertools.count()

    def new(self, tenant: str, nbytes: int = 0) -> Call:
        """Return the `Call` of a new request. Its deadline counts from now.

        Args:
            tenant: tenant id of the request.
            nbytes: size of the body in bytes.
        """
        return _RequestCall(self, Owner(tenant, str(next(self._numbers))), nbytes > LARGE_BODY)

    def note_stage(self, tenant: str) -> None:
        """Note that a request of a tenant begins a stage."""
        self._last_stages[tenant] = time.monotonic()

    def are_others_active(self, tenant: str) -> bool:
        """Return whether a request of another tenant began a stage in the last `ACTIVE` seconds."""
        since = time.monotonic() - ACTIVE
        return any(other != tenant and at > since for other, at in list(self._last_stages.items()))


class _RequestCall(Call):
    def __init__(self, calls: Calls, owner: Owner, is_large: bool) -> None:
        super().__init__(
            calls.metrics.stage,
            owner=owner,
            seconds=calls.settings.request_seconds,
            max_answer_bytes=calls.settings.answer_bytes,
            memory=calls.memory,
            piece_seconds=PIECE_SECONDS,
        )
        self._calls, self._is_large = calls, is_large
        self._parsed = 0.0  # seconds of parsing since the last rest
        self._prompts = 0  # number of prompts in the stages so far

    def stage(self, name: str, count: int = 1) -> AbstractContextManager[Any]:
        """Return a context manager that times a stage. A stage that computes first waits for its turn (see `Turns`).

        The mask decoder computes in threads of its own. But while other tenants are active, a request of several
        prompts holds a turn while its prompts are decoded, so that the decoding and the drawing of a tenant together
        use at most half of the processors. A click, which is a single prompt, needs no turn: clicks share batches of
        the decoder.

        Raises:
            ClientDisconnected, DeadlineExceeded: as `check` does, also while waiting.
        """
        timer = super().stage(name, count)
        self._calls.note_stage(self.owner.tenant)
        if name in MODEL_STAGES:
            self._calls.model_used = time.monotonic()
        if name == "parse" and self._is_large:
            return self._parsing(timer)
        if name == "prompt":
            self._prompts += count
            needs_turn = self._prompts > 1 and self._calls.are_others_active(self.owner.tenant)
        else:
            needs_turn = name in COMPUTING
        return self._in_turn(timer) if needs_turn else timer

    @contextmanager
    def _in_turn(self, timer: AbstractContextManager[Any]) -> Iterator[None]:
        with self._calls.turns.turn(self.owner, self.check), timer:
            yield

    @contextmanager
    def _parsing(self, timer: AbstractContextManager[Any]) -> Iterator[None]:
        """Parse a large body in turn, and rest afterwards if a model was used recently."""
        with self._calls.large.turn(self.owner, self.check):
            try:
                with self._in_turn(timer), self._measured():
                    yield
            finally:
                self._rest()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Count the time of parsing. If parsing fails, delete what was parsed."""
        began = time.thread_time()
        try:
            yield
        except Exception as error:
            # Otherwise, the event loop would delete it, and would serve no other request in the meantime.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            self._parsed += time.thread_time() - began

    def _rest(self) -> None:
        if self._parsed > MAX_BUSY:
            if time.monotonic() - self._calls.model_used < RECENT:
                self._calls.sleep(min(REST * self._parsed, MAX_REST))
            self._parsed = 0.0
