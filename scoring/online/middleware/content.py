"""What kind of request a route takes: its content type, and which pages may send it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.dialects import dialect_of, respond

OTHER_SITES = ("cross-site", "same-site")


class ContentMiddleware:
    """Rejects bodies of a content type that the route's dialect does not speak, and requests of other sites' pages.

    A browser sends some requests of any page to any server without asking it first: those without a content type, of
    plain text, and forms. Its header `sec-fetch-site` tells them apart from this endpoint's own page.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, problem = Headers(scope=scope), None
        if headers.get("sec-fetch-site") in OTHER_SITES and not self._allows(headers.get("origin", "")):
            problem = Problem.of_status(403, "pages of other sites may not send requests here (--cors-origins)")
        elif scope["method"] == "POST":
            media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            types = dialect_of(scope["path"]).content_types
            if media_type not in types:
                problem = Problem.of_status(415, f"content-type: expected {' or '.join(types)}, got another")
        await (respond(scope["path"], problem) if problem else self.app)(scope, receive, send)

    def _allows(self, origin: str) -> bool:
        return "*" in self.origins or origin.lower() in self.origins
