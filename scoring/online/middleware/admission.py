"""A limit on the number of requests in progress."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects import respond
from sam_endpoint.scoring.online.metrics import Metrics


class AdmissionMiddleware:
    """Rejects requests with 503 while `max_in_flight` are in progress."""

    def __init__(self, app: ASGIApp, max_in_flight: int, metrics: Metrics) -> None:
        self.app, self.max_in_flight, self.metrics = app, max_in_flight, metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.in_flight >= self.max_in_flight:
            problem = Problem.of_status(503, "too many requests are being answered; try again")
            await respond(scope["path"], problem)(scope, receive, send)
            return
        self._count(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.in_flight += change
        self.metrics.in_flight.set(self.in_flight)
