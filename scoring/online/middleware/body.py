"""Limits on the body: its size, also once it is inflated, its memory, and the time it may take to arrive."""

from __future__ import annotations

import asyncio
import zlib

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.model.budget import MemoryBudget
from sam_endpoint.model.errors import OUT_OF_MEMORY, BadRequest, EndpointError, Overloaded
from sam_endpoint.scoring.errors import problem_of
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond

MAX_UNKNOWN = 16  # bodies at one time whose key is not known yet
UNKNOWN_SECONDS = 10.0
COPIES = 2  # the body, and what is read from it
GZIP = 16 + zlib.MAX_WBITS  # tells zlib to expect gzip's header


class TooLarge(BadRequest):
    """The body is larger than the limit."""

    status = 413


class TooSlow(BadRequest):
    """The body did not arrive in time."""

    status = 408


class UnsupportedEncoding(BadRequest):
    """The body has a content encoding other than gzip."""

    status = 415


class BodyMiddleware:
    """Reads the whole body into the context, inflated if it is gzip.

    A larger body gets 413, a slower one 408, and one for which memory is short 503. Where keys are needed, bodies whose
    key is not known yet (some clients send it in the body) have few places and little time of their own: if all places
    are taken, the body that has taken longest is dropped for a new one.

    Args:
        app: the application.
        max_bytes: largest body.
        seconds: time for a body to arrive.
        memory: the budget that holds the bodies.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float, memory: MemoryBudget) -> None:
        self.app, self.max_bytes, self.seconds, self.memory = app, max_bytes, seconds, memory
        self._unknown: dict[asyncio.Timeout, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context, held = context_of(scope), Held(self.memory)
        seconds = self.seconds if context.tenant is not None else min(self.seconds, UNKNOWN_SECONDS)
        try:
            error = await self._receive(scope, receive, held, seconds)
            if error is None:
                await self.app(scope, receive, send)
            else:
                held.release()
                await respond(scope["path"], problem_of(error))(scope, receive, send)
        finally:
            context.body = b""
            held.release()

    async def _receive(self, scope: Scope, receive: Receive, held: Held, seconds: float) -> EndpointError | None:
        """Read the body into the context, or return why it is rejected. Raises ClientDisconnect."""
        context = context_of(scope)
        try:
            async with asyncio.timeout(seconds) as timeout:
                if context.tenant is None:
                    self._enter(timeout)
                try:
                    context.body = await self._read(Headers(scope=scope), receive, held)
                finally:
                    self._unknown.pop(timeout, None)
        except TimeoutError:
            return TooSlow(f"the request's body did not arrive within {seconds:g} seconds")
        except (BadRequest, Overloaded) as error:
            return error
        return None

    def _enter(self, timeout: asyncio.Timeout) -> None:
        """Take a place among the bodies without a known key; the oldest loses its place if all are taken."""
        if len(self._unknown) >= MAX_UNKNOWN:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())
        self._unknown[timeout] = None

    async def _read(self, headers: Headers, receive: Receive, held: Held) -> bytes:
        """Return the whole body. Raises BadRequest, Overloaded and ClientDisconnect."""
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", ""):
            raise UnsupportedEncoding("content-encoding: expected gzip or none, got another")
        if int(headers.get("content-length", "0") or 0) > self.max_bytes:
            raise self._too_large()
        inflater = Inflater() if "gzip" in encoding else None
        parts, size, arrived = [], 0, 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part = message.get("body", b"")
            arrived += len(part)
            if inflater:
                # In a thread, since 64 KiB can inflate to 64 MiB; never further than one byte beyond the limit.
                part = await asyncio.to_thread(inflater.inflate, part, self.max_bytes - size + 1)
            size += len(part)
            if max(size, arrived) > self.max_bytes:
                raise self._too_large()
            held.take(COPIES * len(part))
            parts.append(part)
            if not message.get("more_body"):
                break
        if inflater and not inflater.complete:
            raise BadRequest("content-encoding: expected a complete gzip body, got one that ends early")
        # In a thread, since copying a large body takes long; Python's lock is free meanwhile.
        return parts[0] if len(parts) == 1 else await asyncio.to_thread(b"".join, parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the request's body is larger than {self.max_bytes} bytes")


class Held:
    """Bytes of the memory budget that one body holds."""

    def __init__(self, memory: MemoryBudget) -> None:
        self.memory, self.nbytes = memory, 0

    def take(self, nbytes: int) -> None:
        """Hold more bytes. Raises Overloaded."""
        if not self.memory.try_take(nbytes):
            raise Overloaded(OUT_OF_MEMORY)
        self.nbytes += nbytes

    def release(self) -> None:
        """Return all of them."""
        self.memory.release(self.nbytes)
        self.nbytes = 0


class Inflater:
    """Inflates a gzip body that arrives in parts and may consist of several gzip members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)

    @property
    def complete(self) -> bool:
        """Whether the body may end here."""
        return self._member.eof

    def inflate(self, part: bytes, max_bytes: int) -> bytes:
        """Return at most `max_bytes` bytes of a part; more than that are lost. Raises BadRequest for a broken body."""
        inflated = bytearray()
        try:
            while part and len(inflated) < max_bytes:
                if self._member.eof:
                    self._member = zlib.decompressobj(GZIP)
                inflated += self._member.decompress(part, max_bytes - len(inflated))
                part = self._member.unused_data
        except zlib.error:
            raise BadRequest("content-encoding: expected a gzip body, got bytes that are not gzip") from None
        return bytes(inflated)
