"""Limit the number of requests in progress, and share this limit fairly between API keys."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond
from sam_endpoint.scoring.online.metrics import Metrics


class AdmissionMiddleware:
    """Rejects requests with status 503 while too many requests are in progress.

    A request counts as in progress once its key is known and its body has arrived. With several API keys, one key can
    have at most `max_in_flight / 2` requests in progress. The equal share of a key is `max_in_flight` divided by the
    number of keys. The requests of a key below its equal share are always admitted, even if `max_in_flight` requests
    are in progress.

    Args:
        app: the application.
        max_in_flight: largest number of requests in progress.
        keys: number of API keys.
        metrics: reports the number of requests in progress.
    """

    def __init__(self, app: ASGIApp, max_in_flight: int, keys: int, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self.max_in_flight = max_in_flight
        self.max_of_key = max(1, max_in_flight // 2) if keys > 1 else max_in_flight
        self.share = max(1, max_in_flight // max(1, keys))
        self.in_flight: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it with status 503."""
        tenant = context_of(scope).tenant or ""
        mine = self.in_flight[tenant]
        if not (mine < self.share or (mine < self.max_of_key and self.in_flight.total() < self.max_in_flight)):
            problem = Problem.of_status(503, "too many requests are in progress; try again later")
            await respond(scope["path"], problem)(scope, receive, send)
            return
        self._count(tenant, 1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._count(tenant, -1)

    def _count(self, tenant: str, change: int) -> None:
        self.in_flight[tenant] += change
        if not self.in_flight[tenant]:
            del self.in_flight[tenant]
        self.metrics.in_flight.set(self.in_flight.total())
