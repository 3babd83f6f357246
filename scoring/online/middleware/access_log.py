"""Write one log line for each request, and count the request in the metrics."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.model.errors import ClientDisconnected
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.metrics import Metrics

logger = logging.getLogger("sam_endpoint.requests")
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")


class AccessLogMiddleware:
    """Logs each request as a JSON object, and counts it in the metrics.

    A request whose client disconnects is logged with status 499. Unknown paths and methods may contain data. So the log
    has "none" and a length instead of an unknown path, and "other" instead of an unknown method.

    Args:
        app: the application.
        metrics: counts and times the requests.
        paths: the known paths.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and log it when the response is complete or the client has disconnected."""
        started, status = time.perf_counter(), ClientDisconnected.status
        context = context_of(scope)

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and not context.call.cancelled:
                status = message["status"]
                context.rejected = status >= 400
            try:
                await send(message)
            except ClientDisconnect:
                status = ClientDisconnected.status
                raise

        try:
            await self.app(scope, receive, send_and_record_status)
        finally:
            self._log(scope, context.request_id, status, time.perf_counter() - started)

    def _log(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        path = scope["path"]
        # Some routes have parameters in their paths, for example a model name. Their template is logged, not the path.
        route = path if path in self.paths else getattr(scope.get("route"), "path", "none")
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        line = {
            "request_id": request_id,
            "method": scope["method"] if scope["method"] in METHODS else "other",
            "path": route,
            **({"path_length": len(path)} if route == "none" else {}),
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
        }
        logger.info(json.dumps(line))
