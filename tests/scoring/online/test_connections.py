"""Bodies in chunks: those that clients send are read, those that keep the event loop busy are rejected."""

from __future__ import annotations

import h11
import pytest

from sam_endpoint.scoring.online.connections import HEADER_BYTES, MAX_CHUNKS, CountingConnection

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
        assert len(body_of(connection, chunked(1, 200))) == 200
        for event in (h11.Response(status_code=200, headers=[]), h11.EndOfMessage()):
            connection.send(event)
        connection.start_next_cycle()
