"""A port that reads requests and answers them at once, without any work: a control for attacks.

The attackers keep the processors as busy with this port as with the endpoint. So the time of a click on the endpoint
while the attackers send to this port shows how much of an attack's effect is only that its senders use processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import re
from collections.abc import Iterator

from tests.conftest import free_port

ANSWER = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
MAX_HEAD = 2**14


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """Run such a port in a process of the lowest priority until the block ends. Yield its URL."""
    port = free_port()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


def _serve(port: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    asyncio.run(_listen(port))


async def _listen(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port, limit=2**20)
    await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD and (part := await reader.read(2**16)):
            head += part
        head, _, body = head.partition(b"\r\n\r\n")
        length, end, nbytes = LENGTH.search(head), body[-5:], len(body)
        chunked = b"chunked" in head.lower()
        while (nbytes < int(length[1])) if length else chunked and end != b"0\r\n\r\n":
            if not (part := await reader.read(2**16)):
                break
            nbytes, end = nbytes + len(part), (end + part)[-5:]
        writer.write(ANSWER)
        await writer.drain()
    writer.close()
