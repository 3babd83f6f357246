"""Create the `Call` of each request, with the limits of the settings and with metrics of its stages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sam_endpoint.model import threads
from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.model.call import Call, Owner
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.settings import EndpointSettings
from sam_endpoint.scoring.online.turns import Turns

# Stages that compute in the request's own thread and therefore need a turn.
COMPUTING = ("parse", "decode", "mask", "render")
PIECE_SECONDS = 0.05  # requests divide their work into pieces of about this duration and take turns between them


class Calls:
    """Creates the `Call` of each request of one endpoint.

    A `Call` (see `model.call`) carries the cancellation, deadline, memory budget and stage timers of one request.

    Args:
        settings: limits of requests.
        metrics: receives the duration of stages and the memory in use.

    Attributes:
        memory: memory budget that all requests share.
        turns: limit on the number of requests that compute at the same time.
    """

    def __init__(self, settings: EndpointSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        # With several keys, a quarter of the memory is always left to the other tenants.
        several = len(settings.keys()) > 1
        self.memory = MemoryBudget(settings.memory, per_tenant=settings.memory * 3 // 4 if several else None)
        metrics.watch_memory(self.memory)
        # A tenant gets half of the processors: the decoder and the event loop compute too.
        processors = max(2, threads.thread_count())
        self.turns = Turns(processors, per_tenant=processors // 2)
        self._numbers = itertools.count()

    def new(self, tenant: str) -> Call:
        """Return the `Call` of a new request. Its deadline counts from now.

        Args:
            tenant: tenant id of the request.
        """
        return _RequestCall(self, Owner(tenant, str(next(self._numbers))))


class _RequestCall(Call):
    def __init__(self, calls: Calls, owner: Owner) -> None:
        super().__init__(
            calls.metrics.stage,
            owner=owner,
            seconds=calls.settings.request_seconds,
            max_answer_bytes=calls.settings.answer_bytes,
            memory=calls.memory,
            piece_seconds=PIECE_SECONDS,
        )
        self._turns = calls.turns

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """Return a context manager that times a stage. A stage that computes first waits for its turn (see `Turns`).

        Raises:
            ClientDisconnected, DeadlineExceeded: as `check` does, also while waiting.
        """
        timer = super().stage(name)
        return self._in_turn(timer) if name in COMPUTING else timer

    @contextmanager
    def _in_turn(self, timer: AbstractContextManager[Any]) -> Iterator[None]:
        with self._turns.turn(self.owner, self.check), timer:
            yield
