"""An event loop rests while a model computes, and connections whose requests were rejected read in turn."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from sam_endpoint.scoring.online.connections import ConnectionGuard, GuardedProtocol
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.pacing import MAX_WAIT, REST, ReadTurns, RestingSelector, TurnFlow, new_event_loop


class Transport:
    """Records when its connection may read again."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.order.append(self.name)


def test_an_event_loop_rests_while_a_model_computes() -> None:
    rests: list[float] = []
    # When the selector is made, and then before and after each call: work of 1 ms, 0.1 ms, 0.5 s and 0.3 s.
    times = iter((0.0, 0.001, 0.002, 0.0021, 0.0022, 0.5022, 0.6, 0.9, 1.0))
    computing = iter((True, True, True, False))
    selector = RestingSelector(computing.__next__, rests.append, times.__next__)
    for _ in range(4):
        assert selector.select(0) == []
    # The second work is too short for a rest. During the last, no model computes.
    assert rests == [pytest.approx(REST * 0.001), MAX_WAIT]


def test_a_model_does_not_wait_for_a_busy_event_loop() -> None:
    """An event loop that is always busy leaves two thirds of the time to other threads while a model computes."""

    async def busy() -> float:
        started, spent = time.monotonic(), time.thread_time()
        while time.monotonic() < started + 0.5:
            for _ in range(1000):
                pass
            await asyncio.sleep(0)
        return (time.thread_time() - spent) / (time.monotonic() - started)

    with asyncio.Runner(loop_factory=partial(new_event_loop, lambda: True)) as runner:
        assert runner.run(busy()) < 0.45


def test_connections_read_in_turn() -> None:
    order: list[str] = []

    async def wait() -> None:
        turns, loop = ReadTurns(), asyncio.get_running_loop()
        for name in "abc":
            turns.wait(TurnFlow(cast(asyncio.Transport, Transport(name, order))), loop)
        assert not order
        while len(order) < 3:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(wait(), 10))
    assert order == ["a", "b", "c"]


def test_only_connections_with_a_rejected_request_wait() -> None:
    waited: list[str] = []

    class Guard(ConnectionGuard):
        """Records the paths after which a connection waits."""

        def wait(self, connection: GuardedProtocol) -> None:
            waited.append(path)
            super().wait(connection)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        context = context_of(scope)
        context.tenant, context.rejected = {"/good": ("a", False), "/bad": ("a", True)}.get(
            scope["path"], (None, False)
        )
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    guard = Guard(100, 5, 5)
    server = uvicorn.Server(uvicorn.Config(app, http=guard.protocol(), log_config=None, lifespan="off"))
    serving = threading.Thread(target=server.run, args=([listener],))
    serving.start()
    with socket.create_connection(listener.getsockname(), 10) as connection:
        for path in ("/good", "/bad", "/without-a-key", "/good"):
            before = len(waited)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            deadline = time.monotonic() + 5
            while path != "/good" and len(waited) == before and time.monotonic() < deadline:
                time.sleep(0.001)
    server.should_exit = True
    serving.join()
    assert waited == ["/bad", "/without-a-key"]
