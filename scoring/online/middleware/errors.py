"""The last resort for exceptions that no route handled."""

from __future__ import annotations

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_endpoint.model.errors import ClientDisconnected
from sam_endpoint.model.mlflow.messages import trace
from sam_endpoint.scoring.errors import problem_of
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond

logger = logging.getLogger("sam_endpoint.requests")


class ErrorMiddleware:
    """Answers in the client's dialect when an exception escapes; only the log has its type and place."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context, started = context_of(scope), False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, note_start)
        except (ClientDisconnect, ClientDisconnected):
            pass  # nobody reads a response
        except Exception as error:
            if started:  # too late to answer otherwise; the server ends the connection
                logger.error("request %s ended early\n%s", context.request_id, trace(error))
                return
            logger.error("request %s failed\n%s", context.request_id, trace(error))
            await respond(scope["path"], problem_of(error))(scope, receive, send)
