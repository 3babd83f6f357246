"""What every request passes before a route sees it, one concern a module; `guard` puts them in order."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.online.metrics import Metrics
from sam_endpoint.scoring.online.middleware.access_log import AccessLogMiddleware
from sam_endpoint.scoring.online.middleware.admission import AdmissionMiddleware
from sam_endpoint.scoring.online.middleware.auth import BodyKeyMiddleware, HeaderKeyMiddleware, Keys
from sam_endpoint.scoring.online.middleware.body import BodyMiddleware
from sam_endpoint.scoring.online.middleware.disconnect import DisconnectMiddleware
from sam_endpoint.scoring.online.middleware.errors import ErrorMiddleware
from sam_endpoint.scoring.online.middleware.headers import HeadersMiddleware
from sam_endpoint.scoring.online.middleware.json_limits import NodeLimitMiddleware, UnicodeMiddleware
from sam_endpoint.scoring.online.middleware.send_timeout import SendTimeoutMiddleware
from sam_endpoint.scoring.online.settings import EndpointSettings

OPEN_PATHS = ("/", "/ping", "/health", "/ready", "/version", "/docs", "/openapi.json", "/metrics", "/favicon.ico")
OPEN_PREFIX = "/page/"


class GuardMiddleware:
    """Sends requests for open paths straight to the app, and all others through the guards.

    Outermost first: headers, time to read the response; then for guarded paths: access log, errors, admission, key in
    headers, body, JSON nodes, key in body, Unicode, disconnects.
    """

    def __init__(self, app: ASGIApp, settings: EndpointSettings, metrics: Metrics) -> None:
        self.open = app
        keys = Keys(settings.keys())
        guarded: ASGIApp = DisconnectMiddleware(app, metrics.stage)
        guarded = UnicodeMiddleware(guarded)
        guarded = BodyKeyMiddleware(guarded, keys)
        guarded = NodeLimitMiddleware(guarded)
        guarded = BodyMiddleware(guarded, settings.body_bytes, settings.body_seconds)
        guarded = HeaderKeyMiddleware(guarded, keys)
        guarded = AdmissionMiddleware(guarded, settings.in_flight, metrics)
        guarded = ErrorMiddleware(guarded)
        self.guarded = AccessLogMiddleware(guarded, metrics)
        self.entry = HeadersMiddleware(SendTimeoutMiddleware(self._route, settings.body_seconds))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.entry(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_open = scope["type"] != "http" or path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        await (self.open if is_open else self.guarded)(scope, receive, send)
