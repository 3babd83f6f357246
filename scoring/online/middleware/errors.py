"""The last resort for exceptions that no route handled."""

from __future__ import annotations

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import problem_of
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond

logger = logging.getLogger("sam_endpoint.requests")


class ErrorMiddleware:
    """Answers in the client's dialect when an exception escapes; the log gets the traceback, the client does not."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody reads a response
        except Exception as error:
            logger.error("request %s failed", context.request_id, exc_info=error)
            await respond(scope["path"], problem_of(error))(scope, receive, send)
