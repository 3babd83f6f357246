"""Messages that clients send are read; messages that keep the event loop busy are rejected or wait."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h11
import pytest
import uvicorn

from sam_endpoint.scoring.online.accepting import accept_connections
from sam_endpoint.scoring.online.connections import (
    HEADER_BYTES,
    LARGE_BYTES,
    MAX_AHEAD,
    MAX_CHUNKS,
    ConnectionGuard,
    CountingConnection,
)
from sam_endpoint.scoring.online.pacing import MAX_WAIT, Pacer

HEAD = b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(size: int, count: int) -> bytes:
    return HEAD + (f"{size:x}\r\n".encode() + bytes(size) + b"\r\n") * count + b"0\r\n\r\n"


def body_of(connection: CountingConnection, message: bytes) -> bytes:
    connection.receive_data(message)
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        body += bytes(event.data) if isinstance(event, h11.Data) else b""
    return body


@pytest.mark.parametrize(("size", "count"), [(1, MAX_CHUNKS), (300, 5000), (2**16, 100)])
def test_bodies_in_ordinary_chunks_are_read(size: int, count: int) -> None:
    assert len(body_of(CountingConnection(HEADER_BYTES), chunked(size, count))) == size * count


def test_a_body_of_many_tiny_chunks_is_rejected_soon() -> None:
    connection = CountingConnection(HEADER_BYTES)
    with pytest.raises(h11.RemoteProtocolError):
        body_of(connection, chunked(1, 500_000))
    assert connection._chunks == MAX_CHUNKS + 1


def test_each_request_of_a_connection_is_counted_alone() -> None:
    connection = CountingConnection(HEADER_BYTES)
    for _ in range(3):
        assert len(body_of(connection, chunked(1, MAX_CHUNKS))) == MAX_CHUNKS
        for event in (h11.Response(status_code=200, headers=[]), h11.EndOfMessage()):
            connection.send(event)
        connection.start_next_cycle()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and answer with two bytes. Answer requests for `/wait` only after the client disconnects."""
    while (message := await receive())["type"] != "http.disconnect":
        if not message.get("more_body") and scope["path"] != "/wait":
            break
    else:
        hung_up.set()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


hung_up = threading.Event()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=ConnectionGuard(100, 5, 5).protocol(), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = threading.Thread(target=server.run, args=([listener],))
    serving.start()
    yield listener.getsockname()
    server.should_exit = True
    serving.join()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_connection_answers_one_request_after_the_other(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 10) as connection:
        for _ in range(3):
            connection.sendall(GET)
            answer = b""
            while not answer.endswith(b"ok"):
                answer += connection.recv(4096)


def test_requests_sent_ahead_end_the_connection_after_one_answer(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 10) as connection:
        connection.sendall(GET * 1000)
        answers = b""
        try:
            while part := connection.recv(4096):
                answers += part
        except ConnectionResetError:
            pass
    assert answers.count(b"200 OK") <= 1


def test_tiny_chunks_get_an_answer_or_a_reset(address: tuple[str, int]) -> None:
    for _ in range(3):
        with socket.create_connection(address, 10) as connection:
            try:
                connection.sendall(chunked(1, 5000))
                while connection.recv(4096):
                    pass
            except (ConnectionResetError, BrokenPipeError):
                pass
    test_a_connection_answers_one_request_after_the_other(address)


def test_a_client_that_sends_far_ahead_is_disconnected_without_an_answer(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 10) as connection:
        connection.sendall(GET + GET * (MAX_AHEAD // len(GET) + 1))
        answers = b""
        try:
            while part := connection.recv(4096):
                answers += part
        except ConnectionResetError:
            pass
    assert answers == b""


def test_a_client_that_sends_ahead_and_hangs_up_is_noticed(address: tuple[str, int]) -> None:
    hung_up.clear()
    with socket.create_connection(address, 10) as connection:
        connection.sendall(GET.replace(b"GET /", b"GET /wait") + GET)
        assert not hung_up.wait(0.2)
    assert hung_up.wait(10)


def test_large_bodies_that_arrive_at_the_same_time_are_read_in_full(address: tuple[str, int]) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {20 * LARGE_BYTES}\r\n\r\n".encode()
    answers = []

    def send() -> None:
        with socket.create_connection(address, 10) as connection:
            for _ in range(2):
                connection.sendall(head + bytes(20 * LARGE_BYTES))
                answer = b""
                while not answer.endswith(b"ok"):
                    answer += connection.recv(4096)
                answers.append(answer)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12 and all(b"200 OK" in answer for answer in answers)


@pytest.mark.parametrize(
    ("passed", "busy", "expected"),
    [(0.004, 0.004, 0.004), (0.012, 0.009, 0.006), (0.004, 0.002, 0), (0.0005, 0.0005, 0), (1, 0, 0), (1, 1, MAX_WAIT)],
)
def test_work_waits_while_the_event_loop_is_busy_for_more_than_half_of_the_time(
    passed: float, busy: float, expected: float
) -> None:
    pacer = Pacer(iter((0, passed)).__next__, iter((0, busy)).__next__)
    assert pacer.seconds() == pytest.approx(expected)


@pytest.mark.parametrize(("busy", "computing"), [(True, False), (False, True), (False, False)])
def test_a_busy_server_drops_connections_whose_clients_have_hung_up(busy: bool, computing: bool) -> None:
    class Recorder(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.append(data)

    async def accept() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            for i in range(3):
                with socket.create_connection(listener.getsockname()) as connection:
                    connection.sendall(b"hung up %d" % i)
            with socket.create_connection(listener.getsockname()) as connection:
                connection.sendall(b"waits")
                pacer = Pacer(itertools.count(0, 0.001).__next__, itertools.count(0, 0.001 * busy).__next__)
                accepting = asyncio.create_task(accept_connections(listener, Recorder, pacer, lambda: computing))
                while b"waits" not in received:
                    await asyncio.sleep(0.01)
                accepting.cancel()

    received: list[bytes] = []
    asyncio.run(asyncio.wait_for(accept(), 10))
    dropped = {0, 1, 2} if computing else {1, 2} if busy else set()  # it is busy only after the first connection
    assert received == [*(b"hung up %d" % i for i in range(3) if i not in dropped), b"waits"]
