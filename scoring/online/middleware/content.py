"""Check the content type of requests, and reject requests that web pages of other sites send."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects import dialect_of, respond

OTHER_SITES = ("cross-site", "same-site")


class ContentMiddleware:
    """Rejects unsupported content types, and requests from web pages of origins that are not allowed.

    Browsers send some requests to any server without a CORS preflight: requests without a content type, with plain
    text, or with a form. The header `sec-fetch-site`, which browsers set, reveals requests from pages of other sites.

    Args:
        app: the application.
        origins: the allowed origins; "*" allows all.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request with status 403 or 415, or pass it on."""
        headers, problem = Headers(scope=scope), None
        if headers.get("sec-fetch-site") in OTHER_SITES and not self._allows(headers.get("origin", "")):
            problem = Problem.of_status(
                403, "pages of other sites may not send requests; allow their origins with --cors-origins"
            )
        elif scope["method"] == "POST":
            media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            types = dialect_of(scope["path"]).content_types
            if media_type not in types:
                problem = Problem.of_status(415, f"content-type: expected {' or '.join(types)}, got another")
        await (respond(scope["path"], problem) if problem else self.app)(scope, receive, send)

    def _allows(self, origin: str) -> bool:
        return "*" in self.origins or origin.lower() in self.origins
