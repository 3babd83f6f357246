"""Download images by URL, only from public hosts and from hosts that the deployment allows.

A URL in a request could make the server connect to any host in its network (SSRF). A host is therefore resolved once,
its addresses are checked, and the connection uses a checked address; every redirect is checked in the same way.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from urllib.parse import quote, urljoin, urlsplit

from ..errors import BadInput, EndpointError

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


def fetch(
    url: str,
    hosts: Sequence[str],
    max_bytes: int,
    seconds: float,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Download the content of an http(s) URL.

    Args:
        url: the URL.
        hosts: allowed hosts: `*` for every host with public addresses; a name, or a pattern such as `*.example.com`,
            whatever its addresses are; a network such as `10.0.0.0/8`, whatever the host's name is.
        max_bytes: maximum size. At most one more byte is read, and nothing if the Content-Length is larger.
        seconds: timeout for the whole download, including redirects, connecting and the last byte. The system's name
            resolution is not interrupted.
        on_bytes: called with the size of every part before it is added; may raise to give up.
        headers: further headers of the request, such as credentials; a redirect to another server does not get them.

    Returns:
        The body of the response.

    Raises:
        BadInput: the host is not allowed, or the status of the response is not 200 to 299.
    """
    deadline = time.monotonic() + seconds
    for _ in range(MOST_REDIRECTS + 1):
        try:
            response = _get(url, hosts, max_bytes, deadline, on_bytes, headers or {})
            if isinstance(response, bytes):
                return response
            target = urljoin(url, response)
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers = None
            url = target
        except EndpointError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise BadInput(COLUMN, f"{EXPECTED} within {seconds:g} s", "an answer that takes longer") from None
            problem = "a broken answer" if isinstance(error, http.client.HTTPException) else "no answer"
            raise BadInput(COLUMN, EXPECTED, f"{problem} ({type(error).__name__})") from None
    raise BadInput(COLUMN, f"a URL of at most {MOST_REDIRECTS} redirects", "more of them")


def _get(
    url: str,
    hosts: Sequence[str],
    max_bytes: int,
    deadline: float,
    on_bytes: Callable[[int], None],
    headers: Mapping[str, str],
) -> bytes | str:
    """Send one request; return the body of the response, or the location to which it redirects."""
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
        # Quotes characters that could end the request line early; existing percent escapes stay unchanged.
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~#+!$,;'@()*[]")
        connection.request("GET", target, headers={**headers, **HEADERS})
        with connection.getresponse() as response:
            location = response.headers.get("Location")
            if response.status in REDIRECTS and location:
                return location
            if not 200 <= response.status < 300:
                raise BadInput(COLUMN, EXPECTED, f"HTTP status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise BadInput(COLUMN, "a URL that sends an image as it is", "one with a Content-Encoding")
            if (response.length or 0) > max_bytes:
                raise BadInput(COLUMN, f"an image file of at most {max_bytes} bytes", f"{response.length} bytes")
            return _body(response, max_bytes, deadline, on_bytes)


def _body(
    response: http.client.HTTPResponse, max_bytes: int, deadline: float, on_bytes: Callable[[int], None]
) -> bytes:
    """Read at most `max_bytes` + 1 bytes of the body."""
    body = bytearray()
    while len(body) <= max_bytes and (chunk := response.read(min(CHUNK, max_bytes + 1 - len(body)))):
        on_bytes(len(chunk))
        body += chunk
    if time.monotonic() >= deadline:
        raise TimeoutError
    if response.length and len(body) <= max_bytes:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(body)


def _resolve(host: str, port: int, hosts: Sequence[str]) -> list[str]:
    """Return the addresses of a host. Raises BadInput if any of them is not allowed."""
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not any(fnmatch(host.lower(), pattern.lower()) for pattern in hosts if pattern != ANY_PUBLIC):
        networks = [ipaddress.ip_network(pattern) for pattern in hosts if "/" in pattern]
        for address in map(ipaddress.ip_address, addresses):
            listed = any(address in network for network in networks)
            if not (listed or (ANY_PUBLIC in hosts and _is_public(address))):
                raise BadInput(COLUMN, "a URL of a host that may be asked", "one that is private or not on the list")
    return addresses


def _is_public(address: Address) -> bool:
    """Return whether an address is public; an IPv4 address embedded in an IPv6 address must be public too."""
    candidates: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        candidates += [address.sixtofour] if address.sixtofour else []
        if any(address in network for network in _TRANSLATED):
            candidates.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        elif address not in _IPV6:
            return False
    return all(
        candidate.is_global and not candidate.is_multicast and not any(candidate in network for network in _NOT_PUBLIC)
        for candidate in candidates
    )


# Mapped (RFC 4291), compatible (its predecessors) and NAT64 (RFC 6052): the last 32 bits are an IPv4 address.
_TRANSLATED = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]
_IPV6 = ipaddress.ip_network("2000::/3")  # global unicast (RFC 4291)
# Networks that `is_global` accepts in some or all Python versions: IETF protocol assignments, which contain a cloud
# metadata address, and the address of the Azure host agent.
_NOT_PUBLIC = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "168.63.129.16/32")]


@contextmanager
def _connected(addresses: Sequence[str], port: int, tls_host: str | None, deadline: float) -> Iterator[socket.socket]:
    """Connect to the first address that accepts a connection, and shut the connection down at the deadline.

    If `tls_host` is set, TLS is used and the certificate must be valid for that host.
    """
    connected, failed = None, OSError("no address")
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), _remaining(deadline))
            break
        except OSError as error:
            failed = error
    if connected is None:
        raise failed
    with connected:
        if tls_host:
            connected = _tls().wrap_socket(connected, server_hostname=tls_host)
        # A socket timeout restarts with every byte that arrives; this timer does not.
        timer = threading.Timer(_remaining(deadline), _shut, [connected])
        timer.daemon = True
        timer.start()
        try:
            yield connected
        finally:
            timer.cancel()
            connected.close()


def _remaining(deadline: float) -> float:
    """Return the seconds until the deadline. Raises TimeoutError if it has passed."""
    if (remaining := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return remaining


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
