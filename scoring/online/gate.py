"""What every request passes before a route sees it: its id, its key, its size, and whether there is room for it."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.embeddings import tenant
from model.errors import DEFECT, NO_MEMORY, is_out_of_memory
from scoring.online.batching import Caller, caller
from scoring.online.metrics import Metrics
from scoring.tenants import tenant_of

logger = logging.getLogger("scoring.online.requests")
OPEN = ("/", "/ping", "/health", "/ready", "/version", "/docs", "/openapi.json", "/metrics", "/favicon.ico")
HUNG_UP = 499  # what nginx notes for a client that did not wait for its answer
MOST_PARTS = 300_000  # lists and objects of a JSON body: tenths of a second of reading, or ten rows of all prompts
KEY_NEEDED = "a key is needed: `Authorization: Bearer KEY`, `X-API-Key: KEY` or `?api_key=KEY`"
KEY_HEADERS = ("x-api-key", "api-key")


class Gate:
    """ASGI middleware. `refuse(path, status, message)` makes an answer in the shape of the path's dialect.

    With keys, each key is a tenant of its own: what is kept for one is not found by another.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        in_flight: int,
        body_bytes: int,
        body_seconds: float,
        refuse: Callable[[str, int, str], Response],
        metrics: Metrics,
    ) -> None:
        self.app, self.refuse, self.metrics = app, refuse, metrics
        self.keys = [key.encode() for key in keys]
        self.in_flight, self.body_bytes, self.body_seconds = in_flight, body_bytes, body_seconds
        self.now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, path, status = time.perf_counter(), scope["path"], HUNG_UP
        request_id = Headers(scope=scope).get("x-request-id", "")[:64]
        request_id = request_id if request_id.isprintable() and request_id else uuid.uuid4().hex

        left = asyncio.Event()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = HUNG_UP if left.is_set() else message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if status == 503:
                    headers["retry-after"] = "1"
            try:
                async with asyncio.timeout(self.body_seconds):
                    await send(message)
            except TimeoutError:  # it has stopped reading
                status = HUNG_UP
                raise ClientDisconnect from None

        if path in OPEN or path.startswith("/page/"):
            await self.app(scope, receive, send_named)
            return
        if self.now >= self.in_flight:
            response = self.refuse(path, 503, "too many requests are being answered; try again")
            await response(scope, receive, send_named)
            self._note(scope, request_id, status, began)
            return
        self.now += 1
        self.metrics.in_flight.set(self.now)
        try:
            await self._let_in(scope, receive, send_named, left)
        except ClientDisconnect:
            left.set()
        except Exception as error:
            logger.error("request %s failed", request_id, exc_info=error)
            full = is_out_of_memory(error)
            message = NO_MEMORY if full else DEFECT
            await self.refuse(path, 503 if full else 500, message)(scope, receive, send_named)
        finally:
            self.now -= 1
            self.metrics.in_flight.set(self.now)
            self._note(scope, request_id, status, began)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send, left: asyncio.Event) -> None:
        """Reads the body, looks at the key, and lets the app answer. `left` is set when the client hangs up."""
        path, headers = scope["path"], Headers(scope=scope)
        shown = self._shown(scope, headers)
        if shown and self._owner(shown) is None:  # before its body is waited for
            await self.refuse(path, 401, KEY_NEEDED)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.body_seconds):
                body = await self._body(headers, receive)
        except TimeoutError:
            message = f"the request's body did not arrive within {self.body_seconds:g} seconds"
            await self.refuse(path, 408, message)(scope, receive, send)
            return
        except ClientDisconnect:
            left.set()
            return
        if body is None:
            message = f"the request's body is larger than {self.body_bytes} bytes"
            await self.refuse(path, 413, message)(scope, receive, send)
            return
        if _is_json(headers) and (parts := body.count(b"[") + body.count(b"{")) > MOST_PARTS:
            message = f"expected a JSON body of at most {MOST_PARTS:,} lists and objects, got {parts:,}"
            await self.refuse(path, 400, message)(scope, receive, send)
            return
        owner = self._owner(shown or await asyncio.to_thread(_key_within, body) if self.keys else "")
        if owner is None:
            await self.refuse(path, 401, KEY_NEEDED)(scope, receive, send)
            return
        if _is_json(headers) and not await asyncio.to_thread(_is_text, body):
            message = "expected a JSON body of Unicode text as UTF-8, got half a character or another encoding"
            await self.refuse(path, 400, message)(scope, receive, send)
            return

        if "content-type" not in headers:
            # MLflow's route fails without one; all that is asked here is JSON unless it says otherwise.
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]
        sent, asking = False, Caller()

        async def replay() -> Message:
            nonlocal sent
            if sent:
                await left.wait()
                return {"type": "http.disconnect"}
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()
            asking.leave()

        tokens = tenant.set(owner), caller.set(asking)
        watching = asyncio.create_task(watch())
        try:
            await self.app(scope, replay, send)
        finally:
            watching.cancel()
            tenant.reset(tokens[0])
            caller.reset(tokens[1])

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None when it is too large. Raises ClientDisconnect."""
        if int(headers.get("content-length", "0") or 0) > self.body_bytes:
            return None
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > self.body_bytes:
                return None
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts)

    def _shown(self, scope: Scope, headers: Headers) -> str:
        """The key that a request shows before its body, empty where it shows none or none is asked for."""
        if not self.keys:
            return ""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            return given.strip()
        for name in KEY_HEADERS:
            if name in headers:
                return headers[name]
        query = parse_qs(scope["query_string"].decode("latin-1")).get("api_key")
        return query[0] if query else ""

    def _owner(self, key: str) -> str | None:
        """Whose the key is, a text that says nothing of it; None for a wrong one. Every key is compared, in constant
        time, so that the time taken tells nothing."""
        if not self.keys:
            return ""
        given = key.encode()
        matches = [hmac.compare_digest(given, known) for known in self.keys]
        return tenant_of(key) if any(matches) else None

    def _note(self, scope: Scope, request_id: str, status: int, began: float) -> None:
        """One line in the log, and the counts; a path that is no route is counted as such, not by its name."""
        took = time.perf_counter() - began
        route = getattr(scope.get("route"), "path", "none")
        self.metrics.requests.labels(route, status).inc()
        self.metrics.seconds.labels(route).observe(took)
        line = {
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "milliseconds": round(1000 * took, 1),
        }
        logger.info(json.dumps(line))


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "application/json").partition(";")[0].strip().lower() == "application/json"


def _key_within(body: bytes) -> str:
    """The key in a JSON body, where some clients put it."""
    if b'"api_key"' not in body:
        return ""
    try:
        return str(json.loads(body).get("api_key", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _is_text(body: bytes) -> bool:
    """Whether a body is UTF-8, and spells no half of a surrogate pair, a character that no text can hold."""
    try:
        body.decode()
        if _SURROGATE.search(body):
            json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeError:
        return False
    except (ValueError, RecursionError):
        return True  # whoever reads it says what is wrong
    return True


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
