"""Limits on the body: its size, and the time it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond


class BodyMiddleware:
    """Reads the whole body into the context. A larger one gets 413, a slower one 408."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                body = await self._read(Headers(scope=scope), receive)
        except TimeoutError:
            problem = Problem.of_status(408, f"the request's body did not arrive within {self.seconds:g} seconds")
            await respond(scope["path"], problem)(scope, receive, send)
            return
        if body is None:
            problem = Problem.of_status(413, f"the request's body is larger than {self.max_bytes} bytes")
            await respond(scope["path"], problem)(scope, receive, send)
            return
        context_of(scope).body = body
        await self.app(scope, receive, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """Return the whole body, or None if it is too large. Raises ClientDisconnect."""
        if int(headers.get("content-length", "0") or 0) > self.max_bytes:
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self.max_bytes:
                return None
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)
