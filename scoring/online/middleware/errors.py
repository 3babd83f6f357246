"""Answer requests whose route raises an unhandled exception."""

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
    """Converts unhandled exceptions to an error response in the client's dialect.

    The response does not describe the exception. The log has its type and traceback.

    Args:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, and answer with status 500 or 503 if it fails."""
        context, started = context_of(scope), False

        async def send_and_record_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_record_start)
        except (ClientDisconnect, ClientDisconnected):
            pass  # no client is left to read a response
        except Exception as error:
            if started:  # an error response is no longer possible; the server closes the connection
                logger.error("request %s failed after its response had begun\n%s", context.request_id, trace(error))
                return
            logger.error("request %s failed\n%s", context.request_id, trace(error))
            await respond(scope["path"], problem_of(error))(scope, receive, send)
