"""Limit the number of open connections, the time that clients take, and the share of the event loop that they use.

uvicorn has neither a timeout for headers nor one for clients that stop reading a response. asyncio reads from all
connections in each turn of the event loop, so a client that sends a click waits for the large bodies of others.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.pacing import ReadTurns, TurnFlow

logger = logging.getLogger(__name__)
LOG_SECONDS = 60.0  # shortest time between two log lines about refused connections
SWEEP_SECONDS = 1.0  # time between two checks of the timeouts
HEADER_BYTES = 2**14  # maximum size of a request line with its headers; uvicorn's default
# A tiny chunk costs the event loop as much time as a large one. In a body of more than MAX_CHUNKS chunks, the chunks
# must have at least MIN_CHUNK bytes on average.
MAX_CHUNKS = 64
MIN_CHUNK = 256
# Largest number of bytes that the event loop reads and parses for one connection before it turns to the next.
# asyncio's default is four times as much.
READ_BYTES = 2**16
LARGE_BYTES = 2**18  # a body counts as large as soon as this part of it has arrived
LARGE_READ_BYTES = 2**18  # the same as READ_BYTES, for connections with large bodies, which read in turn
MAX_AHEAD = 2**14  # maximum number of bytes that a client may send after a request, before the response
OTHER_FILES = 64  # file descriptors that the process needs besides its connections


def max_connections(configured: int, in_flight: int) -> int:
    """Return how many connections the process can open, and raise its soft limit of file descriptors to the hard limit.

    Each request in progress may need another descriptor to download its image.

    Args:
        configured: the setting `connections`; the result is never larger.
        in_flight: largest number of requests in progress.

    Returns:
        Number of connections, at least 8.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    available = hard if hard != resource.RLIM_INFINITY else configured + in_flight + OTHER_FILES
    return max(8, min(configured, available - in_flight - OTHER_FILES))


class ConnectionGuard:
    """The open connections of one server, and their limits.

    Args:
        max_open: largest number of open connections. A further connection replaces the oldest connection that has no
            request in progress. If every connection has a request in progress, the new connection is closed.
        header_seconds: timeout for the headers of a request. It starts when the connection opens, and later with the
            first byte of each further request.
        read_seconds: timeout for a client that stops reading its response.
    """

    def __init__(self, max_open: int, header_seconds: float, read_seconds: float) -> None:
        self.max_open, self.header_seconds, self.read_seconds = max_open, header_seconds, read_seconds
        self._open: dict[GuardedProtocol, None] = {}
        self._refused, self._logged = 0, -LOG_SECONDS
        self._sweeping: asyncio.TimerHandle | None = None
        self._large: set[GuardedProtocol] = set()
        self._bodies, self._rejected = ReadTurns(), ReadTurns()

    def protocol(self) -> type[H11Protocol]:
        """Return a protocol class that belongs to this guard, for `uvicorn.Config(http=...)`."""
        return type("Protocol", (GuardedProtocol,), {"guard": self})

    def add(self, connection: GuardedProtocol) -> None:
        """Add an open connection. If there are too many, close the oldest idle connection.

        Args:
            connection: the new connection. If there are too many, and no other connection is idle, the function closes
                the new connection.
        """
        self._open[connection] = None
        if len(self._open) > self.max_open:
            idle = next((other for other in self._open if not other.is_busy()), connection)
            self._refuse(idle)
        if self._sweeping is None:
            self._sweep(connection.loop)

    def remove(self, connection: GuardedProtocol) -> None:
        """Remove a closed connection.

        Args:
            connection: the connection.
        """
        self._open.pop(connection, None)
        self._large.discard(connection)

    def receive(self, connection: GuardedProtocol, is_large: bool) -> None:
        """Let connections that receive large bodies read in turn: at most one in each turn of the event loop.

        Args:
            connection: a connection that has read a part of a body.
            is_large: whether the body is large.
        """
        if not is_large:
            if connection in self._large:
                self._large.remove(connection)
                connection.transport.max_size = READ_BYTES  # type: ignore[attr-defined]
            return
        self._large.add(connection)
        connection.transport.max_size = LARGE_READ_BYTES  # type: ignore[attr-defined]
        if len(self._large) > 1:
            self._bodies.wait(connection.flow, connection.loop)

    def wait(self, connection: GuardedProtocol) -> None:
        """Stop to read from a connection whose last request was rejected or had no valid key, until it is its turn.

        Args:
            connection: the connection.
        """
        self._rejected.wait(connection.flow, connection.loop)

    def _refuse(self, connection: GuardedProtocol) -> None:
        self._open.pop(connection, None)
        connection.transport.abort()
        self._refused += 1
        if time.monotonic() - self._logged >= LOG_SECONDS:
            logger.warning(
                "%d connections closed: more than %d were open (limited by --connections and by file descriptors)",
                self._refused,
                self.max_open,
            )
            self._refused, self._logged = 0, time.monotonic()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for connection in list(self._open):
            if connection.is_overdue(now, self.header_seconds, self.read_seconds):
                self._open.pop(connection, None)
                connection.transport.abort()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None


class CountingConnection(h11.Connection):
    """An h11 connection that rejects a body of more than MAX_CHUNKS tiny chunks.

    Attributes:
        nbytes: number of bytes of the current body that have arrived.
    """

    def __init__(self, max_incomplete_event_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size)
        self._chunks = self.nbytes = 0

    def next_event(self) -> Any:
        """Return the next event. Raises h11.RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._chunks += 1
            self.nbytes += len(event.data)
            if self._chunks > MAX_CHUNKS and self.nbytes < MIN_CHUNK * self._chunks:
                raise h11.RemoteProtocolError("the chunks of the body are too small")
        elif isinstance(event, h11.Request):
            self._chunks = self.nbytes = 0
        return event


class GuardedProtocol(H11Protocol):
    """uvicorn's HTTP protocol, extended by the limits of a guard.

    Attributes:
        guard: the guard of all connections; subclasses set it.
        conn: the HTTP messages of this connection.
        flow: the flow control of this connection.
    """

    guard: ConnectionGuard
    conn: CountingConnection
    flow: TurnFlow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout for headers, and add the connection to the guard."""
        self.conn = CountingConnection(self.config.h11_max_incomplete_event_size or HEADER_BYTES)
        self._waiting_since: float | None = time.monotonic()
        self._unread, self._unread_since = 0, 0.0
        self._ahead = 0
        assert isinstance(transport, asyncio.Transport)
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # asyncio has no public way to set it
        super().connection_made(transport)
        self.flow = TurnFlow(transport)
        self.guard.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the guard."""
        self.guard.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes. The first bytes of a request start the timeout for its headers."""
        if self._ahead:
            self._drop(len(data))
            return
        if self._waiting_since is None and not self.is_busy():
            self._waiting_since = time.monotonic()
        try:
            super().data_received(data)
        except h11.LocalProtocolError:  # the data is invalid, but a response has begun, so status 400 is not possible
            self.transport.abort()
        if self.is_busy():
            self._waiting_since = None
            # Some clients send further requests before this one is answered. Such a client gets only this answer, and
            # must then open a new connection. Otherwise thousands of requests in one packet could block the event loop.
            # The connection is read on, without parsing, because otherwise nobody notices that the client disconnects.
            if self.conn.their_state is h11.DONE and (ahead := len(self.conn.trailing_data[0])):
                self.cycle.keep_alive = False
                self.flow.resume_reading()
                self._drop(ahead)
        self.guard.receive(self, self.conn.nbytes > LARGE_BYTES and self.conn.their_state is h11.SEND_BODY)

    def on_response_complete(self) -> None:
        """Wait for further requests. After a rejected request, or a request without a valid key, others read first."""
        super().on_response_complete()
        context = context_of(self.scope)  # type: ignore[arg-type]
        if (context.tenant is None or context.rejected) and not self.transport.is_closing():
            self.guard.wait(self)

    def _drop(self, nbytes: int) -> None:
        """Count bytes that the client sent ahead. If there are too many, disconnect the client."""
        self._ahead += nbytes
        if self._ahead > MAX_AHEAD:
            self.cycle.disconnected = True  # before the application starts to work on the request
            self.transport.abort()

    def is_busy(self) -> bool:
        """Return whether a request is in progress on this connection."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def is_overdue(self, now: float, header_seconds: float, read_seconds: float) -> bool:
        """Return whether the client sends its headers, or reads its response, too slowly.

        Args:
            now: the time, as `time.monotonic` returns it.
            header_seconds: timeout for headers.
            read_seconds: timeout for a client that stops reading.
        """
        if self._waiting_since is not None and now - self._waiting_since > header_seconds:
            return True
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread < self._unread or not self._unread:
            self._unread_since = now
        self._unread = unread
        return unread > 0 and now - self._unread_since > read_seconds
