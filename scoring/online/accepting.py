"""Accept connections, at most one in each turn of the event loop, and only while the loop is idle half of the time.

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
MAX_WAIT = 0.01  # seconds for which work waits at most while the event loop is busy
MAX_UNACCEPTED = 256  # connections that wait in the kernel; a longer queue would delay new clients after a flood
RETRY_SECONDS = 1.0  # after the process ran out of file descriptors


class Pacer:
    """Leaves half of an event loop's time to other work.

    Between the start of two pieces of work, the event loop should be idle for as long as it is busy. So the pieces wait
    only while the event loop is busy for more than half of the time.

    Args:
        clock: returns a time in seconds.
        busy_clock: returns for how many seconds the thread of the event loop was busy.

    Example:
        >>> pacer = Pacer(iter((0.0, 0.0, 0.004)).__next__, iter((0.0, 0.0, 0.003)).__next__)
        >>> pacer.start()
        >>> pacer.seconds()  # after 4 ms, of which the event loop was busy for 3 ms
        0.002
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, busy_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock, self._busy_clock = clock, busy_clock
        self._time, self._busy = clock(), busy_clock()

    def start(self) -> None:
        """Note that a piece of work starts now. Call this method in the thread of the event loop."""
        self._time, self._busy = self._clock(), self._busy_clock()

    def seconds(self) -> float:
        """Return for how many seconds the next piece should wait: at most `MAX_WAIT`, or 0."""
        passed, busy = self._clock() - self._time, self._busy_clock() - self._busy
        return max(0.0, min(2 * busy, MAX_WAIT) - passed)


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
        pacer.start()
        if has_hung_up(connection):
            connection.close()
        else:
            await loop.connect_accepted_socket(protocol, connection)
        await asyncio.sleep(pacer.seconds())


def has_hung_up(connection: socket.socket) -> bool:
    """Return whether the client has closed the connection already, also if its request is still unread."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))
