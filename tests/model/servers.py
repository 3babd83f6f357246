"""Real HTTP servers on loopback whose every byte a test chooses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Handler = Callable[[socket.socket], None]


def head(status: str = "200 OK", **fields: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class Servers:
    """Servers that read a request, append it to `requests`, and send their bytes or let their function answer."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._listeners: list[socket.socket] = []

    def __call__(self, answer: bytes | Handler, address: str = "127.0.0.1", port: int = 0) -> str:
        """Start a server and return its URL."""
        listener = socket.create_server((address, port))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=[listener, answer], daemon=True).start()
        return f"http://{address}:{listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop all servers."""
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: socket.socket, answer: bytes | Handler) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=[client, answer], daemon=True).start()

    def _talk(self, client: socket.socket, answer: bytes | Handler) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request and (part := client.recv(4096)):
                request += part
            self.requests.append(request.decode())
            with contextlib.suppress(OSError):  # when the other side has had enough
                client.sendall(answer) if isinstance(answer, bytes) else answer(client)
