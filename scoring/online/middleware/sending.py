"""Send responses in chunks, and disconnect clients that read too slowly."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CHUNK = 2**16  # bytes; the server waits for the client between two chunks
MIN_RATE = 50_000  # bytes per second; every 50 kB of a response add a second to the timeout of the response


class SendingMiddleware:
    """Sends response bodies in chunks of 64 KiB, and treats clients that read too slowly as disconnected.

    Without the chunks, a slow client could keep the whole body in the memory of the transport.

    Args:
        app: the application.
        seconds: timeout in seconds for each chunk. The timeout for a whole response is one second longer for each
            50 kB of the response.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            ClientDisconnect: the client reads too slowly.
        """
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

        async def send_in_chunks(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or len(body) <= CHUNK:
                await send_in_time(message)
                return
            for start in range(0, len(body), CHUNK):
                is_last = start + CHUNK >= len(body)
                more = message.get("more_body", False) if is_last else True
                await send_in_time({**message, "body": body[start : start + CHUNK], "more_body": more})

        await self.app(scope, receive, send_in_chunks)
