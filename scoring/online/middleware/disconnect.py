"""Cancellation of the work when its client disconnects."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.model.call import Call, StageTimer
from sam_endpoint.scoring.online.context import context_of


class DisconnectMiddleware:
    """Gives each request a Call, and cancels it when the client disconnects before the response is complete.

    Routes receive the body that the context holds.
    """

    def __init__(self, app: ASGIApp, time_stage: StageTimer) -> None:
        self.app, self.time_stage = app, time_stage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        context.call = Call(self.time_stage)
        if "content-type" not in Headers(scope=scope):
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]  # the default of all routes
        disconnected, sent = asyncio.Event(), False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                await disconnected.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": context.body, "more_body": False}

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
