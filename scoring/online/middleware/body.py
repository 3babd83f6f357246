"""Read request bodies.

The size of a body (before and after decompression), its memory, and the time until it arrives are limited.
"""

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

MAX_UNKNOWN = 16  # maximum number of bodies with an unknown API key that arrive at the same time
UNKNOWN_SECONDS = 10.0  # timeout for a body with an unknown API key
COPIES = 2  # copies of the content in memory: the body, and the values that are parsed from the body
GZIP = 16 + zlib.MAX_WBITS  # makes zlib expect a gzip header
PIECE = 2**20  # maximum number of bytes that one call decompresses to


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
    """Reads the whole body into the context of the request, and decompresses gzip.

    The middleware rejects a request with status 413 if its body is too large, 408 if it arrives too slowly, 400 or 415
    if its encoding is bad, and 503 if too little memory is free.

    Some clients send the API key in the body, so the key is unknown until the body has arrived. A body with an unknown
    key has a shorter timeout, and at most `MAX_UNKNOWN` of these bodies arrive at the same time. If a further body
    begins, the oldest of these bodies gets status 408.

    Args:
        app: the application.
        max_bytes: largest body in bytes, before and after decompression.
        seconds: timeout for receiving a body.
        memory: memory budget that the bodies share with other work.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float, memory: MemoryBudget) -> None:
        self.app, self.max_bytes, self.seconds, self.memory = app, max_bytes, seconds, memory
        self._unknown: dict[asyncio.Timeout, None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and pass the request on or reject it."""
        context = context_of(scope)
        held = Held(self.memory, context.tenant or "")
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
        """Read the body into the context.

        Returns:
            The error if the body is rejected, else None.

        Raises:
            ClientDisconnect: the client disconnected before the body was complete.
        """
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
            return TooSlow(f"the request body did not arrive within {seconds:g} seconds")
        except (BadRequest, Overloaded) as error:
            return error
        return None

    def _enter(self, timeout: asyncio.Timeout) -> None:
        """Register a body without a known key. If there are too many, let the oldest one time out now."""
        if len(self._unknown) >= MAX_UNKNOWN:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            oldest.reschedule(asyncio.get_running_loop().time())
        self._unknown[timeout] = None

    async def _read(self, headers: Headers, receive: Receive, held: Held) -> bytes:
        """Return the whole body, decompressed.

        Raises:
            BadRequest: the body is too large, or its encoding is bad.
            Overloaded: too little memory is free.
            ClientDisconnect: the client disconnected before the body was complete.
        """
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", ""):
            raise UnsupportedEncoding("content-encoding: expected gzip or none, got another encoding")
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
                inflater.feed(part)
            while part:
                # 64 KiB can decompress to 64 MiB. So decompression runs in a thread, in pieces of about PIECE bytes.
                piece = await asyncio.to_thread(inflater.inflate) if inflater else part
                size += len(piece)
                if max(size, arrived) > self.max_bytes:
                    raise self._too_large()
                held.take(COPIES * len(piece))
                parts.append(piece)
                if not inflater or not inflater.has_more:
                    break
            if not message.get("more_body"):
                break
        if inflater and not inflater.complete:
            raise BadRequest("content-encoding: expected a complete gzip body, got one that ends early")
        # `join` copies a large body, which takes long, so it runs in a thread. `join` releases the GIL during the copy.
        return parts[0] if len(parts) == 1 else await asyncio.to_thread(b"".join, parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"expected a request body of at most {self.max_bytes:,} bytes, got a larger one")


class Held:
    """The bytes of a memory budget that one request body holds.

    Args:
        memory: the budget.
        tenant: tenant id of the request; empty while the API key is unknown.
    """

    def __init__(self, memory: MemoryBudget, tenant: str) -> None:
        self.memory, self.tenant, self.nbytes = memory, tenant, 0

    def take(self, nbytes: int) -> None:
        """Take bytes from the budget.

        Args:
            nbytes: number of bytes.

        Raises:
            Overloaded: the budget has fewer bytes left.
        """
        if not self.memory.try_take(nbytes, self.tenant):
            raise Overloaded(OUT_OF_MEMORY)
        self.nbytes += nbytes

    def release(self) -> None:
        """Return all held bytes to the budget."""
        self.memory.release(self.nbytes, self.tenant)
        self.nbytes = 0


class Inflater:
    """Decompresses a gzip body that arrives in parts and may consist of several gzip members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._compressed = b""

    @property
    def complete(self) -> bool:
        """Whether the bytes so far end with a complete gzip member."""
        return self._member.eof

    @property
    def has_more(self) -> bool:
        """Whether `inflate` has more to return before the next `feed`."""
        return bool(self._compressed)

    def feed(self, part: bytes) -> None:
        """Add compressed bytes."""
        self._compressed += part

    def inflate(self) -> bytes:
        """Decompress about PIECE bytes.

        Raises:
            BadRequest: the bytes are not gzip.
        """
        pieces, nbytes = [], 0
        try:
            while self._compressed and nbytes < PIECE:
                if self._member.eof:
                    self._member = zlib.decompressobj(GZIP)
                piece = self._member.decompress(self._compressed, PIECE)
                self._compressed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
                pieces.append(piece)
                nbytes += len(piece)
        except zlib.error:
            raise BadRequest("content-encoding: expected a gzip body, got bytes that are not gzip") from None
        return b"".join(pieces)
