"""The Call of each request: its limits, its turns at the processors, and its stages in the metrics."""

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

COMPUTING = ("parse", "decode", "mask", "render")  # stages that compute in the request's own thread
PIECE_SECONDS = 0.05


class Calls:
    """Makes the Calls of one endpoint.

    Attributes:
        memory: what requests hold together.
    """

    def __init__(self, settings: EndpointSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.memory = MemoryBudget(settings.memory)
        metrics.watch_memory(self.memory)
        # A tenant gets half of the processors: the decoder and the event loop compute too.
        processors = max(2, threads.thread_count())
        self.turns = Turns(processors, per_tenant=processors // 2)
        self._numbers = itertools.count()

    def new(self, tenant: str) -> Call:
        """Return the Call of a request that begins now."""
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
        """Return the timer of a stage, which waits for its turn if the stage computes. Raises as `check` does."""
        timer = super().stage(name)
        return self._in_turn(timer) if name in COMPUTING else timer

    @contextmanager
    def _in_turn(self, timer: AbstractContextManager[Any]) -> Iterator[None]:
        with self._turns.turn(self.owner, self.check), timer:
            yield
