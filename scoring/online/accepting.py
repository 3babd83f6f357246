"""Accept connections, at most one in each turn of the event loop, and only while the loop is not too busy.

asyncio and uvicorn accept all waiting connections at once. A flood of connections would then leave no time for clients
that are already connected.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)
MAX_BUSY = 2 / 3  # share of its time for which the event loop may be busy before new connections and large bodies wait
MIN_WAIT, MAX_WAIT = 0.001, 0.01  # seconds for which they wait; the event loop rounds times up to milliseconds
MAX_UNACCEPTED = 256  # connections that wait in the kernel; a longer queue would delay new clients after a flood
RETRY_SECONDS = 1.0  # after the process ran out of file descriptors


class Pacer:
    """Leaves a share of an event loop's time to other work.

    Pieces of work that can wait, such as accepting a connection, ask the pacer how long they should wait. They wait only
    while the event loop is busy for more than `MAX_BUSY` of the time.

    Args:
        clock: returns a time in seconds.
        busy_clock: returns for how many seconds the thread of the event loop was busy.

    Example:
        >>> pacer = Pacer(iter((0.0, 0.004)).__next__, iter((0.0, 0.004)).__next__)
        >>> round(pacer.seconds(), 4)  # after 4 ms, in which the event loop was busy all the time
        0.002
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, busy_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._busy_clock = clock, busy_clock
        self._time, self._busy = clock(), busy_clock()

    def start(self) -> None:
        """Start to measure anew, after waiting. Call this method in the thread of the event loop."""
        self._time, self._busy = self._clock(), self._busy_clock()

    def seconds(self) -> float:
        """Return for how many seconds the next piece of work should wait: 0, or `MIN_WAIT` to `MAX_WAIT`.

        Call this method in the thread of the event loop, and `start` after waiting.
        """
        now, busy = self._clock(), self._busy_clock()
        missing = (busy - self._busy) / MAX_BUSY - (now - self._time)
        if missing <= 0:
            self._time, self._busy = now, busy
        return min(missing, MAX_WAIT) if missing >= MIN_WAIT else 0


async def accept_connections(listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Accept connections until the task is cancelled.

    Args:
        listener: a listening socket that does not block.
        protocol: creates the protocol of a connection.
    """
    loop, pacer = asyncio.get_running_loop(), Pacer()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except ConnectionAbortedError:
            continue
        except OSError as error:
            logger.warning("no connection can be accepted: error %s", error.errno)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if has_hung_up(connection):
            connection.close()
        else:
            await loop.connect_accepted_socket(protocol, connection)
        seconds = pacer.seconds()
        await asyncio.sleep(seconds)
        if seconds:
            pacer.start()


def has_hung_up(connection: socket.socket) -> bool:
    """Return whether the client has closed the connection already, also if its request is still unread."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
