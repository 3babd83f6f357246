"""Add headers to every response: the request id, the retry delay and `x-content-type-options`."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.scoring.online.context import context_of

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
RETRY_AFTER = "1"  # seconds


class HeadersMiddleware:
    """Assigns an id to every request, and returns it in the response header `x-request-id`.

    The client may choose the id in the request header `x-request-id`: at most 64 letters, digits and `._:-`. Any other
    value is replaced by a random id.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and add the headers to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")
        request_id = request_id if REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex
        context_of(scope).request_id = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-content-type-options"] = "nosniff"
                if message["status"] == 503:
                    headers["retry-after"] = RETRY_AFTER
            await send(message)

        await self.app(scope, receive, send_with_headers)
