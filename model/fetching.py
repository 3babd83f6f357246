"""Images by URL: from public hosts and from those that a deployment names, and from nothing else.

A URL in a request is an attacker's way to whatever this machine can reach. So a host is resolved once, its addresses
are looked at, and the connection goes to the address that was looked at; each redirect is a URL like the first.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from urllib.parse import quote, urljoin, urlsplit

from model.errors import BadInput

COLUMN = "image"
EXPECTED = "a URL that answers with an image"
ANY_PUBLIC = "*"
ANY = ("0.0.0.0/0", "::/0")
MOST_REDIRECTS = 3
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
CHUNK = 2**16
HEADERS = {"User-Agent": "segment-anything-endpoint", "Accept-Encoding": "identity"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str, hosts: Sequence[str], max_bytes: int, seconds: float) -> bytes:
    """What an http(s) URL answers with.

    hosts: which may be asked: `*` for every host with public addresses; a name, or a pattern such as `*.example.com`,
    whatever its addresses; a network such as `10.0.0.0/8`, under whatever name.
    max_bytes: at most one byte more than that is read, and nothing when the answer says that it is larger.
    seconds: for the whole of it, redirects, connecting and the last byte included; only the system's own time to
    resolve a name is not counted.

    Raises BadInput for a host that may not be asked, and for anything but an answer of status 200 to 299.
    """
    deadline = time.monotonic() + seconds
    for _ in range(MOST_REDIRECTS + 1):
        try:
            answer = _get(url, hosts, max_bytes, deadline)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        except BadInput:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise BadInput(COLUMN, f"{EXPECTED} within {seconds:g} s", "an answer that takes longer") from None
            what = "a broken answer" if isinstance(error, http.client.HTTPException) else "no answer"
            raise BadInput(COLUMN, EXPECTED, f"{what} ({type(error).__name__})") from None
    raise BadInput(COLUMN, f"a URL of at most {MOST_REDIRECTS} redirects", "more of them")


def _get(url: str, hosts: Sequence[str], max_bytes: int, deadline: float) -> bytes | str:
    """The body of the answer, or where it redirects to."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in PORTS:
        raise BadInput(COLUMN, "a URL that redirects to http or https", f"one to scheme '{parts.scheme}'")
    if not parts.hostname or parts.username is not None:
        raise BadInput(COLUMN, "a URL with a host and without a user name", "another one")
    secure, port = parts.scheme.lower() == "https", parts.port or PORTS[parts.scheme.lower()]
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    with _connected(_resolve(host, port, hosts), port, host if secure else None, deadline) as connected:
        connection = http.client.HTTPConnection(host, None if port == PORTS[parts.scheme.lower()] else port)
        connection.sock = connected
        # What is quoted already stays so; what could end the request's first line early is quoted here.
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~#+!$,;'@()*[]")
        connection.request("GET", target, headers=HEADERS)
        with connection.getresponse() as response:
            place = response.headers.get("Location")
            if response.status in REDIRECTS and place:
                return place
            if not 200 <= response.status < 300:
                raise BadInput(COLUMN, EXPECTED, f"HTTP status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise BadInput(COLUMN, "a URL that sends an image as it is", "one with a Content-Encoding")
            if (response.length or 0) > max_bytes:
                raise BadInput(COLUMN, f"an image file of at most {max_bytes} bytes", f"{response.length} bytes")
            return _body(response, max_bytes, deadline)


def _body(response: http.client.HTTPResponse, max_bytes: int, deadline: float) -> bytes:
    body = bytearray()
    while len(body) <= max_bytes and (chunk := response.read(min(CHUNK, max_bytes + 1 - len(body)))):
        body += chunk
    if time.monotonic() >= deadline:
        raise TimeoutError
    if response.length and len(body) <= max_bytes:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(body)


def _resolve(host: str, port: int, hosts: Sequence[str]) -> list[str]:
    """The addresses of a host. Raises BadInput when one of them may not be asked."""
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not any(fnmatch(host.lower(), pattern.lower()) for pattern in hosts if pattern != ANY_PUBLIC):
        networks = [ipaddress.ip_network(pattern) for pattern in hosts if "/" in pattern]
        for address in map(ipaddress.ip_address, found):
            named = any(address in network for network in networks)
            if not (named or (ANY_PUBLIC in hosts and _is_public(address))):
                raise BadInput(COLUMN, "a URL of a host that may be asked", "one that is private or not on the list")
    return found


def _is_public(address: Address) -> bool:
    """Whether an address, and the IPv4 address that an IPv6 one stands for, leads out to the internet."""
    seen: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        seen += [address.sixtofour] if address.sixtofour else []
        if any(address in network for network in _TRANSLATED):
            seen.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        elif address not in _IPV6:
            return False
    return all(
        one.is_global and not one.is_multicast and not any(one in network for network in _NOT_PUBLIC) for one in seen
    )


# Mapped (RFC 4291), compatible (its predecessors) and NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
_TRANSLATED = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]
_IPV6 = ipaddress.ip_network("2000::/3")  # all that is given out (RFC 4291)
# In no Python's list, or not in every one's: IETF protocol assignments, with a cloud's metadata address among them, and
# the address at which Azure's machines find their host.
_NOT_PUBLIC = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "168.63.129.16/32")]


@contextmanager
def _connected(addresses: Sequence[str], port: int, named: str | None, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first address that takes one, over TLS where `named` says who must be there; it is shut when
    the deadline comes, whatever is being read then."""
    connected, failed = None, OSError("no address")
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), _left(deadline))
            break
        except OSError as error:
            failed = error
    if connected is None:
        raise failed
    with connected:
        if named:
            connected = _tls().wrap_socket(connected, server_hostname=named)
        # A timeout on the socket begins anew with every byte that arrives; this one does not.
        cut = threading.Timer(_left(deadline), _shut, [connected])
        cut.daemon = True
        cut.start()
        try:
            yield connected
        finally:
            cut.cancel()
            connected.close()


def _left(deadline: float) -> float:
    """Seconds up to the deadline. Raises TimeoutError when it is past."""
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
