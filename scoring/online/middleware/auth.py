"""Check API keys, and map them to tenants. Each key is a tenant that finds only its own cached data."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from sam_endpoint.scoring.errors import Problem
from sam_endpoint.scoring.online.context import context_of
from sam_endpoint.scoring.online.dialects import respond
from sam_endpoint.scoring.tenants import tenant_of

KEY_NEEDED = Problem.of_status(
    401,
    "an API key is needed: send `Authorization: Bearer KEY`, `X-API-Key: KEY`, `?api_key=KEY`, or KEY as the password "
    "of basic authentication",
)
KEY_HEADERS = ("x-api-key", "api-key", "token")
_BODY_KEY = re.compile(rb'"api_key"\s*:\s*("(?:[^"\\]|\\.){1,512}")')


class Keys:
    """The accepted API keys.

    Each key is a tenant. Without keys, authentication is disabled and every client is the tenant "". Keys are compared
    in constant time, so that response times reveal nothing about them.

    Args:
        keys: the accepted keys; empty to disable authentication.

    Example:
        >>> keys = Keys(["secret"])
        >>> keys.tenant(b"wrong") is None, keys.tenant(b"secret") == tenant_of("secret")
        (True, True)
        >>> Keys([]).tenant(b"anything")
        ''
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [(form, key) for key in keys for form in _forms(key)]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len({key for _, key in self._keys})

    def tenant(self, sent: bytes) -> str | None:
        """Return the tenant id of a key, or None if the key is not accepted.

        Args:
            sent: the bytes of the key that the client sent.
        """
        if not self._keys:
            return ""
        matches = [key for form, key in self._keys if hmac.compare_digest(sent, form)]
        return tenant_of(matches[0]) if matches else None


def _forms(key: str) -> set[bytes]:
    """Return the bytes that clients send for a key: as UTF-8, or as Latin-1 if it has all characters of the key."""
    try:
        return {key.encode(), key.encode("latin-1")}
    except UnicodeEncodeError:
        return {key.encode()}


class HeaderKeyMiddleware:
    """Reads the API key from the headers or the URL, and rejects a wrong key before the body is read.

    A request without a key passes, because its key may be in the body.

    Args:
        app: the application.
        keys: the accepted keys.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """If the headers or the URL have a key, set the tenant of the request, or reject a wrong key."""
        key = _key_before_body(scope) if self.keys else b""
        if key or not self.keys:
            context = context_of(scope)
            context.tenant = self.keys.tenant(key)
            if context.tenant is None:
                await respond(scope["path"], KEY_NEEDED)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyKeyMiddleware:
    """Reads the API key from a JSON body, where some clients send it, if neither the headers nor the URL have a key.

    The body is searched with a regular expression. Parsing it would let clients without a key use processor time.

    Args:
        app: the application.
        keys: the accepted keys.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """If the tenant is not known yet, set it from the key in the body, or reject a request without a valid key."""
        context = context_of(scope)
        if context.tenant is None:
            context.tenant = self.keys.tenant(await asyncio.to_thread(_key_in_body, context.body))
            if context.tenant is None:
                await respond(scope["path"], KEY_NEEDED)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _key_before_body(scope: Scope) -> bytes:
    key = key_in_headers(Headers(scope=scope))
    if key is not None:
        return key
    query = parse_qs(scope["query_string"].decode("latin-1")).get("api_key")
    return query[0].encode() if query else b""


def key_in_headers(headers: Mapping[str, str]) -> bytes | None:
    """Return the API key in the headers of a request, or None if the headers have no key.

    Args:
        headers: the value of each header. The names of the headers are in lower case.
    """
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic" and credentials:
        return _password(credentials)
    for name in KEY_HEADERS:
        if name in headers:
            return headers[name].encode("latin-1", "replace")
    return None


def _password(credentials: str) -> bytes:
    """Return the password of basic authentication. The password is the API key. The user name is ignored."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _key_in_body(body: bytes) -> bytes:
    match = _BODY_KEY.search(body)
    if match is None:
        return b""
    try:
        return str(json.loads(match[1])).encode()
    except (ValueError, UnicodeError):
        return b""
