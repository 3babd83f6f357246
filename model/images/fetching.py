"""Download images by URL, only from public hosts and from hosts that the deployment allows.

Without checks, a URL in a request could make the server connect to any host in its private network (server-side request
forgery, SSRF). This module therefore resolves a host name once, checks the addresses, and connects to a checked
address. Every redirect is checked in the same way.
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
EXPECTED = "a URL that returns an image"
ANY_PUBLIC = "*"  # every host with public addresses
ANY = ("0.0.0.0/0", "::/0")  # every host
MAX_REDIRECTS = 3
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
        url: an http or https URL.
        hosts: allowed hosts. `*` allows every host with public addresses. A name, or a pattern such as `*.example.com`,
            allows hosts of that name at any address. A network such as `10.0.0.0/8` allows hosts of any name at its
            addresses.
        max_bytes: maximum size of the body. A response with a larger Content-Length is rejected before its body is
            read. Without a Content-Length, the function reads and returns at most `max_bytes` + 1 bytes.
        seconds: timeout for the whole download, including redirects, connecting and the last byte. The timeout does not
            interrupt the system's name resolution.
        on_bytes: function that is called with the size of each part of the body before the part is kept. An exception
            from it ends the download.
        headers: further headers of the request, such as credentials; a redirect to another server does not get them.

    Returns:
        The body of the response.

    Raises:
        BadInput: the host is not allowed, there is no response in time, or its status is not 200 to 299.
    """
    deadline = time.monotonic() + seconds
    for _ in range(MAX_REDIRECTS + 1):
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
                raise BadInput(COLUMN, f"{EXPECTED} within {seconds:g} s", "a slower response") from None
            problem = "a malformed response" if isinstance(error, http.client.HTTPException) else "no response"
            raise BadInput(COLUMN, EXPECTED, f"{problem} ({type(error).__name__})") from None
    raise BadInput(COLUMN, f"a URL with at most {MAX_REDIRECTS} redirects", "more redirects")


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
        raise BadInput(COLUMN, "a URL that redirects to http or https", f"a redirect to scheme '{parts.scheme}'")
    if not parts.hostname or parts.username is not None:
        raise BadInput(COLUMN, "a URL with a host and without a user name", "a URL without a host or with a user name")
    secure, port = parts.scheme.lower() == "https", parts.port or PORTS[parts.scheme.lower()]
    host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    with _connected(_resolve(host, port, hosts), port, host if secure else None, deadline) as connected:
        connection = http.client.HTTPConnection(host, None if port == PORTS[parts.scheme.lower()] else port)
        connection.sock = connected
        # Quote characters that could end the request line early. Existing percent escapes stay unchanged.
        target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="%/:=&?~#+!$,;'@()*[]")
        connection.request("GET", target, headers={**headers, **HEADERS})
        with connection.getresponse() as response:
            location = response.headers.get("Location")
            if response.status in REDIRECTS and location:
                return location
            if not 200 <= response.status < 300:
                raise BadInput(COLUMN, EXPECTED, f"HTTP status {response.status}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise BadInput(
                    COLUMN, "a URL that returns an uncompressed response", "a response with a Content-Encoding"
                )
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
                raise BadInput(COLUMN, "a URL of an allowed host", "a host that is private or not on the list of hosts")
    return addresses


def _is_public(address: Address) -> bool:
    """Return whether an address is public. An IPv4 address embedded in an IPv6 address must be public too."""
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


# IPv6 networks whose addresses end in a 32-bit IPv4 address: IPv4-mapped (RFC 4291), IPv4-compatible (RFC 4291,
# deprecated) and NAT64 (RFC 6052).
_TRANSLATED = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "::/96", "64:ff9b::/96")]
_IPV6 = ipaddress.ip_network("2000::/3")  # global unicast (RFC 4291)
# Networks that are not public, although `is_global` accepts them in some or all Python versions. The first holds IETF
# protocol assignments, among them a cloud metadata address; the second is the Azure host agent.
_NOT_PUBLIC = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "168.63.129.16/32")]


@contextmanager
def _connected(addresses: Sequence[str], port: int, tls_host: str | None, deadline: float) -> Iterator[socket.socket]:
    """Connect to the first address that accepts a connection, and shut the connection down at the deadline.

    Args:
        addresses: addresses to try, in order.
        port: port to connect to.
        tls_host: host for which the server's certificate must be valid; None connects without TLS.
        deadline: time on the monotonic clock.
    """
    connected, failed = None, OSError("no address")
    for address in addresses:
        try:
            connected = socket.create_connection((address, port), _remaining(deadline))
            break
        except OSError as error:
            failed = error
    if connected is None:
        try:
            raise failed
        finally:
            del failed  # it refers to this frame
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
    """Return the number of seconds until the deadline. Raises TimeoutError if the deadline has passed."""
    if (remaining := deadline - time.monotonic()) <= 0:
        raise TimeoutError
    return remaining


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
