"""The middleware. Each module has one task. `GuardMiddleware` defines the order of the modules.

Every middleware is a class with the ASGI interface: `app(scope, receive, send)`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.online.calls import Calls
from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.middleware.access_log import AccessLogMiddleware
from sam_endpoint.scoring.online.middleware.admission import AdmissionMiddleware
from sam_endpoint.scoring.online.middleware.auth import BodyKeyMiddleware, HeaderKeyMiddleware, Keys
from sam_endpoint.scoring.online.middleware.body import BodyMiddleware
from sam_endpoint.scoring.online.middleware.content import ContentMiddleware
from sam_endpoint.scoring.online.middleware.disconnect import DisconnectMiddleware
from sam_endpoint.scoring.online.middleware.errors import ErrorMiddleware
from sam_endpoint.scoring.online.middleware.head import HeadMiddleware
from sam_endpoint.scoring.online.middleware.headers import HeadersMiddleware
from sam_endpoint.scoring.online.middleware.sending import SendingMiddleware
from sam_endpoint.scoring.online.settings import EndpointSettings

OPEN_PATHS = (
    "/", "/video", "/ping", "/health", "/ready", "/version", "/docs", "/openapi.json", "/favicon.ico",
    "/v2/health/live", "/v2/health/ready",
)  # fmt: skip
METRICS_PATH = "/metrics"
OPEN_PREFIX = "/page/"


class GuardMiddleware:
    """Passes requests through all middleware, except requests for open paths such as `/ping` and `/docs`.

    The order, from the outermost to the innermost:

    1. For all paths: response headers, sending the response in chunks.
    2. For guarded paths only: access log, unhandled errors, content type and origin, API key in the headers, request
       body, API key in the body, limit of requests in progress, disconnects.

    Args:
        app: the application.
        settings: the limits.
        keys: the accepted API keys.
        metrics: counts requests.
        calls: creates the `Call` of each request.
        paths: all paths of the application. The log does not contain unknown paths, because they may contain data.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: EndpointSettings,
        keys: Sequence[str],
        metrics: Metrics,
        calls: Calls,
        paths: Collection[str],
    ) -> None:
        self.unguarded = app = HeadMiddleware(app)
        accepted = Keys(keys)
        self.metrics_are_open = settings.public_metrics or not keys
        guarded: ASGIApp = DisconnectMiddleware(app, calls.new)
        guarded = AdmissionMiddleware(guarded, settings.in_flight, len(accepted), metrics)
        guarded = BodyKeyMiddleware(guarded, accepted)
        guarded = BodyMiddleware(guarded, settings.body_bytes, settings.body_seconds, calls.memory)
        guarded = HeaderKeyMiddleware(guarded, accepted)
        guarded = ContentMiddleware(guarded, settings.origins())
        guarded = ErrorMiddleware(guarded)
        self.guarded = AccessLogMiddleware(guarded, metrics, paths)
        self.entry = HeadersMiddleware(SendingMiddleware(self._route, settings.body_seconds))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        await self.entry(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_open = scope["type"] != "http" or path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        is_open = is_open and scope.get("method") != "POST"  # CVAT's requests for masks are sent to /
        is_open = is_open or (path == METRICS_PATH and self.metrics_are_open)
        await (self.unguarded if is_open else self.guarded)(scope, receive, send)
