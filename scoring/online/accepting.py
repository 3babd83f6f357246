"""Accept connections, at most one in each turn of the event loop, and only while the loop is not too busy.

asyncio and uvicorn accept all waiting connections at once. A flood of connections would then leave no time for clients
that are already connected.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable

from sam_endpoint.scoring.online.pacing import Pacer

logger = logging.getLogger(__name__)
MAX_UNACCEPTED = 256  # connections that wait in the kernel; a longer queue would delay new clients after a flood
RETRY_SECONDS = 1.0  # after the process ran out of file descriptors


async def accept_connections(
    listener: socket.socket,
    protocol: Callable[[], asyncio.Protocol],
    pacer: Pacer | None = None,
    is_computing: Callable[[], bool] = lambda: False,
) -> None:
    """Accept connections until the task is cancelled.

    While the loop is busy, or a model computes, connections that clients have already closed are dropped, because
    their requests would only cost time.

    Args:
        listener: a listening socket that does not block.
        protocol: creates the protocol of a connection.
        pacer: tells how long to wait between connections; by default, a new one.
        is_computing: returns whether a model computes.
    """
    loop, pacer, seconds = asyncio.get_running_loop(), pacer or Pacer(), 0.0
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except ConnectionAbortedError:
            continue
        except OSError as error:
            logger.warning("no connection can be accepted: error %s", error.errno)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        if (seconds or is_computing()) and has_hung_up(connection):
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
