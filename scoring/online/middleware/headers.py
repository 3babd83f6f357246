"""Headers of every response: the request's id, and when to retry."""

from __future__ import annotations

import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.scoring.online.context import context_of

MAX_REQUEST_ID = 64  # characters
RETRY_AFTER = "1"  # seconds


class HeadersMiddleware:
    """Gives every request an id (the client's `x-request-id` if it is printable) and names it in the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = Headers(scope=scope).get("x-request-id", "")[:MAX_REQUEST_ID]
        request_id = request_id if request_id.isprintable() and request_id else uuid.uuid4().hex
        context_of(scope).request_id = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if message["status"] == 503:
                    headers["retry-after"] = RETRY_AFTER
            await send(message)

        await self.app(scope, receive, send_with_headers)
