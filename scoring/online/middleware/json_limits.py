"""Limits on JSON bodies: how many lists and objects, and valid Unicode."""

from __future__ import annotations

import asyncio
import json
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond

MAX_NODES = 300_000  # lists and objects of a body: tenths of a second of parsing, or ten rows with all their prompts
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NodeLimitMiddleware:
    """Rejects JSON bodies with more than MAX_NODES lists and objects before they are parsed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_json(scope):
            body = context_of(scope).body
            if (nodes := body.count(b"[") + body.count(b"{")) > MAX_NODES:
                message = f"expected a JSON body of at most {MAX_NODES:,} lists and objects, got {nodes:,}"
                await respond(scope["path"], Problem.of_status(400, message))(scope, receive, send)
                return
        await self.app(scope, receive, send)


class UnicodeMiddleware:
    """Rejects JSON bodies that are not UTF-8 or that spell half of a surrogate pair."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_json(scope) and not await asyncio.to_thread(_is_unicode, context_of(scope).body):
            message = "expected a JSON body of Unicode text as UTF-8, got half a character or another encoding"
            await respond(scope["path"], Problem.of_status(400, message))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def is_json(scope: Scope) -> bool:
    """Return whether a request's content type is JSON; a missing one counts as JSON."""
    kind = Headers(scope=scope).get("content-type", "application/json")
    return kind.partition(";")[0].strip().lower() == "application/json"


def _is_unicode(body: bytes) -> bool:
    try:
        body.decode()
        if _SURROGATE.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeError:
        return False
    except (ValueError, RecursionError):
        return True  # the route reports what is wrong with the JSON
    return True
