"""Attacks with the form of HTTP messages."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator

from tests import pictures
from tests.reliability.target import KEY, Target, in_threads, once, scored

HEAD = f"Host: x\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"


def send(target: Target, message: bytes, read: bool = True) -> None:
    """Send bytes on a new connection, and read the response until the endpoint is silent for a second."""
    with contextlib.suppress(OSError), socket.create_connection(target.address, 5) as connection:
        connection.settimeout(1)
        connection.sendall(message)
        while read and connection.recv(65536):
            pass


def header_floods(target: Target) -> None:
    """Send thousands of headers, a header of megabytes, and a header that is folded over many lines."""
    start = b"POST /score HTTP/1.1\r\nHost: x\r\n"
    floods = [
        b"".join(b"a%d: b\r\n" % i for i in range(50_000)),
        b"a: " + b"b" * 10**7,
        b"a: b\r\n" + b" b\r\n" * 10**6,
    ]
    floods += [b"Content-Length: 5\r\n" * 3000, b"Cookie: a=b; " * 4000 + b"\r\n", b": b\r\n" * 8000, b"\0" * 60_000]

    def flood() -> None:
        while not target.over:
            for headers in floods:
                send(target, start + headers + b"\r\n")

    in_threads(8, flood)


def huge_urls(target: Target) -> None:
    """Send huge paths and queries, with escape sequences and with thousands of parameters."""
    urls = ["/score" + "a" * 60_000, "/score?" + "a=b&" * 15_000, "/" + "%00" * 20_000, "/" + "../" * 20_000]
    urls += ["/score?model=" + "%F0" * 20_000, "/" + "a" * 10**7]

    def ask() -> None:
        while not target.over:
            for url in urls:
                send(target, f"POST {url} HTTP/1.1\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}".encode())

    in_threads(8, ask)


def pipelining(target: Target) -> None:
    """Send thousands of requests on one connection, and read no response."""
    body = scored({"mask_encoding": "rle"}, input_points=[[[5, 5]]])
    heavy = f"POST /score HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    light = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    def ask() -> None:
        while not target.over:
            for requests in (heavy * 200, light * 20_000):
                send(target, requests, read=False)

    in_threads(8, ask)


def hang_up_ahead(target: Target) -> None:
    """Send two requests at once on each connection, and close it at once."""
    body = scored({"mask_encoding": "rle"}, input_points=[[[5, 5]]])
    message = (f"POST /score HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body) * 2

    def ask() -> None:
        while not target.over:
            send(target, message, read=False)

    in_threads(8, ask)


def hammering(target: Target) -> None:
    """Send small requests without a key, one after the other, on connections that stay open."""

    def ask() -> None:
        while not target.over:
            with contextlib.suppress(OSError), socket.create_connection(target.address, 5) as connection:
                connection.settimeout(2)
                while not target.over:
                    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                    if not connection.recv(65536):
                        break

    in_threads(8, ask)


def hammering_with_a_key(target: Target) -> None:
    """Send small invalid requests with a key, one after the other, on connections that stay open."""
    in_threads(8, lambda: target.post("/score", b"{}"))


def tiny_chunks(target: Target) -> None:
    """Send bodies in chunks of one byte, with and without a key. The chunks on a connection take a few megabytes."""
    heads = [f"POST /score HTTP/1.1\r\n{HEAD}", "POST /sam2/embed_image HTTP/1.1\r\nHost: x\r\n"]
    chunks = b"1\r\nx\r\n" * 500_000

    def ask() -> None:
        while not target.over:
            for head in heads:
                send(target, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n")

    in_threads(8, ask)


def slow_readers(target: Target) -> None:
    """Request large responses, and read five bytes a second."""
    body = scored({"return_logits": True}, rows=1, input_boxes=[[1, 1, 60, 60]] * 60)
    request = f"POST /score HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def ask() -> None:
        while not target.over:
            with contextlib.suppress(OSError), socket.create_connection(target.address, 5) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(request)
                while not target.over and connection.recv(1):
                    time.sleep(0.2)

    in_threads(40, ask)


def full_bodies(target: Target) -> None:
    """Send the largest allowed bodies on 24 connections, without their last byte."""
    image = pictures.to_text(bytes(24_000_000))
    body = json.dumps({"input_data": [{"image": image, "input_points": [[[1, 1]]]}]}).encode()
    request = f"POST /score HTTP/1.1\r\n{HEAD}Content-Length: {len(body) + 1}\r\n\r\n".encode()

    def wait() -> None:
        while not target.over:
            with contextlib.suppress(OSError), socket.create_connection(target.address, 5) as connection:
                connection.settimeout(3)
                connection.sendall(request)
                for part in _parts(body):
                    connection.sendall(part)
                connection.recv(1)

    in_threads(24, wait)


def _parts(body: bytes) -> Iterator[bytes]:
    yield from (body[start : start + 2**20] for start in range(0, len(body), 2**20))


def wrong_methods(target: Target) -> None:
    """Send unknown methods, HTTP versions and upgrades, and bodies with requests that have no body."""
    messages = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" + bytes(500)]
    messages += [b"GET /page/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"]
    messages += [b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n" + bytes(10**6)]
    messages += [b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nabc"]
    messages += [b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 10**6]
    messages += [b"X" * 60_000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n"]

    def ask() -> None:
        while not target.over:
            for message in messages:
                send(target, message)
            once(target, "/health", b"x" * 100)

    in_threads(8, ask)


ATTACKS: tuple[Callable[[Target], None], ...] = (
    header_floods,
    huge_urls,
    pipelining,
    hang_up_ahead,
    hammering,
    hammering_with_a_key,
    tiny_chunks,
    slow_readers,
    full_bodies,
    wrong_methods,
)
