"""Cancel the work for a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.model.call import Call
from sam_endpoint.scoring.online.context import context_of

CHUNK = 2**20  # bytes; while a route parses a form, the event loop serves other requests between two chunks


class DisconnectMiddleware:
    """Creates the `Call` of each request, and cancels it if the client disconnects before the response is complete.

    `BodyMiddleware` has read the body into the context. This middleware passes the body from the context to the route.

    Args:
        app: the application.
        new_call: creates the `Call` of a request, given the tenant id and the size of the body in bytes.
    """

    def __init__(self, app: ASGIApp, new_call: Callable[[str, int], Call]) -> None:
        self.app, self.new_call = app, new_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Afterwards, close its `Call`, which releases the memory budget."""
        context = context_of(scope)
        context.call = self.new_call(context.tenant or "", len(context.body))
        if "content-type" not in Headers(scope=scope):
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]  # the default of all routes
        disconnected, position = asyncio.Event(), 0

        async def replay() -> Message:
            nonlocal position
            if position and position >= len(context.body):
                await disconnected.wait()
                return {"type": "http.disconnect"}
            chunk = context.body[position : position + CHUNK]
            position += CHUNK
            return {"type": "http.request", "body": chunk, "more_body": position < len(context.body)}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            disconnected.set()
            context.call.cancel()

        watching = asyncio.create_task(watch())
        try:
            await self.app(scope, replay, send)
        finally:
            watching.cancel()
            context.call.close()
