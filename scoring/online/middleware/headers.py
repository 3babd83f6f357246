"""Headers of every response: the request's id, and when to retry."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.scoring.online.context import context_of

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
RETRY_AFTER = "1"  # seconds


class HeadersMiddleware:
    """Gives every request an id and names it in the response.

    The client's `x-request-id` is taken if it has at most 64 letters, digits and `._:-`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
