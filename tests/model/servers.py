"""HTTP servers on loopback that send exactly the bytes that a test gives them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Handler = Callable[[socket.socket], None]


def head(status: str = "200 OK", **fields: object) -> bytes:
    """Return the head of a response: the status line and the header fields. In names of fields, `_` stands for `-`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class Servers:
    """Servers that send fixed bytes, or call a function, as their response.

    Attributes:
        requests: text of all requests that the servers received.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._listeners: list[socket.socket] = []

    def __call__(self, response: bytes | Handler, address: str = "127.0.0.1", port: int = 0) -> str:
        """Start a server and return its URL.

        Args:
            response: bytes to send, or a function that writes to the client's socket.
            address: address on which the server listens.
            port: port on which the server listens, 0 for any.
        """
        listener = socket.create_server((address, port))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=[listener, response], daemon=True).start()
        return f"http://{address}:{listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop all servers."""
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: socket.socket, response: bytes | Handler) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=[client, response], daemon=True).start()

    def _talk(self, client: socket.socket, response: bytes | Handler) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request and (part := client.recv(4096)):
                request += part
            self.requests.append(request.decode())
            with contextlib.suppress(OSError):  # the client may disconnect before it has read everything
                client.sendall(response) if isinstance(response, bytes) else response(client)
