"""A path prefix under which a proxy serves the endpoint."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RootPathMiddleware:
    """Removes a prefix from the paths of requests, and adds it to redirects.

    Some proxies remove the prefix themselves. The middleware does not change a path without the prefix.

    Args:
        app: the application.
        prefix: the prefix, such as `/segment`.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app, self.prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on without the prefix."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path == self.prefix or path.startswith(f"{self.prefix}/"):
            scope = {**scope, "path": path[len(self.prefix) :] or "/"}

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if location := headers.get("location"):
                    parts = urlsplit(location)
                    headers["location"] = parts._replace(path=self.prefix + parts.path).geturl()
            await send(message)

        await self.app(scope, receive, send_with_prefix)
