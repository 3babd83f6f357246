"""Cancellation of the work when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.model.call import Call
from sam_endpoint.scoring.online.context import context_of

PART = 2**20  # bytes; a form is parsed part by part, and the event loop turns to other requests in between


class DisconnectMiddleware:
    """Gives each request a Call, and cancels it when the client disconnects before the response is complete.

    Routes receive the body that the context holds.

    Args:
        app: the application.
        new_call: makes the Call of a request of a tenant.
    """

    def __init__(self, app: ASGIApp, new_call: Callable[[str], Call]) -> None:
        self.app, self.new_call = app, new_call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        context.call = self.new_call(context.tenant or "")
        if "content-type" not in Headers(scope=scope):
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]  # the default of all routes
        disconnected, position = asyncio.Event(), 0

        async def replay() -> Message:
            nonlocal position
            if position and position >= len(context.body):
                await disconnected.wait()
                return {"type": "http.disconnect"}
            part = context.body[position : position + PART]
            position += PART
            return {"type": "http.request", "body": part, "more_body": position < len(context.body)}

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
