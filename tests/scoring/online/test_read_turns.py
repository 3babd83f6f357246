"""Connections whose requests were rejected read in turn, and wait while a model computes."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any, cast

import uvicorn

from sam_endpoint.scoring.online.connections import ConnectionGuard
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.pacing import ReadTurns, TurnFlow


class Transport:
    """Records when its connection may read again."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.order.append(self.name)


def test_connections_read_in_turn_and_wait_while_a_model_computes() -> None:
    order: list[str] = []

    async def wait() -> None:
        turns, loop = ReadTurns(lambda: True), asyncio.get_running_loop()
        for name in "abc":
            turns.wait(TurnFlow(cast(asyncio.Transport, Transport(name, order))), loop)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not order
        while len(order) < 3:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(wait(), 10))
    assert order == ["a", "b", "c"]


def test_only_connections_with_a_rejected_request_wait() -> None:
    """The guard asks whether a model computes only when a connection has to wait."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = context_of(scope)
        context.tenant, context.rejected = {"/good": ("a", False), "/bad": ("a", True)}.get(
            scope["path"], (None, False)
        )
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def is_computing() -> bool:
        asked.append(path)
        return False

    listener = socket.create_server(("127.0.0.1", 0))
    guard = ConnectionGuard(100, 5, 5, is_computing)
    server = uvicorn.Server(uvicorn.Config(app, http=guard.protocol(), log_config=None, lifespan="off"))
    serving = threading.Thread(target=server.run, args=([listener],))
    serving.start()
    with socket.create_connection(listener.getsockname(), 10) as connection:
        for path in ("/good", "/bad", "/without-a-key", "/good"):
            before = len(asked)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            deadline = time.monotonic() + 5
            while path != "/good" and len(asked) == before and time.monotonic() < deadline:
                time.sleep(0.001)
    server.should_exit = True
    serving.join()
    assert asked == ["/bad", "/without-a-key"]
