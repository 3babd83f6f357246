"""Responses leave in pieces, and a client that does not read them is cut off."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE = 2**16  # bytes; the server waits for the client between two pieces
MIN_RATE = 50_000  # bytes a second, beyond the time that every response has


class SendingMiddleware:
    """Sends bodies in pieces of 64 KiB. Who reads slower than allowed counts as disconnected.

    Without the pieces, the whole body would stay in the transport for as long as its client likes.

    Args:
        app: the application.
        seconds: time that every response has; 50 kB a second are added.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, sent = 0.0, 0

        async def send_in_time(message: Message) -> None:
            nonlocal started, sent
            started = started or time.monotonic()
            sent += len(message.get("body", b""))
            remaining = started + self.seconds + sent / MIN_RATE - time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, min(self.seconds, remaining))):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        async def send_in_pieces(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= PIECE:
                await send_in_time(message)
                return
            for start in range(0, len(body), PIECE):
                is_last = start + PIECE >= len(body)
                more = message.get("more_body", False) if is_last else True
                await send_in_time({**message, "body": body[start : start + PIECE], "more_body": more})

        await self.app(scope, receive, send_in_pieces)
