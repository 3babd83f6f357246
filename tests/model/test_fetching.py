"""Fetching of URLs: the URLs that are allowed, the requests, and the errors.

The tests use real servers on loopback. Some tests replace the resolver of host names, to choose the address of a name.
"""

from __future__ import annotations

import gzip
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import fetching
from tests.model.servers import Servers, head

LOOPBACK = ("127.0.0.0/8", "::1/128")


@pytest.fixture
def serve() -> Iterator[Servers]:
    """Return a function that starts servers, and stop the servers after the test."""
    servers = Servers()
    yield servers
    servers.close()


def fetch(url: str, hosts: tuple[str, ...] = LOOPBACK, max_bytes: int = 1000, seconds: float = 5) -> bytes:
    """Fetch a URL with the limits of these tests."""
    return fetching.fetch(url, hosts, max_bytes, seconds)


def refusal(url: str, hosts: tuple[str, ...] = LOOPBACK, max_bytes: int = 1000, seconds: float = 5) -> str:
    """Return the message of the error for a URL that cannot be fetched."""
    with pytest.raises(BadInput) as caught:
        fetch(url, hosts, max_bytes, seconds)
    return str(caught.value)


def resolves(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Replace the resolver of host names.

    Args:
        monkeypatch: pytest's fixture.
        names: addresses of each host name. Each lookup of a name returns the next address, and the last one repeatedly.

    Returns:
        A list that receives each name that is looked up.
    """
    original = socket.getaddrinfo
    lookups: list[str] = []

    def getaddrinfo(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> object:
        address = host
        if host in names:
            lookups.append(host)
            answers = names[host]
            address = answers.pop(0) if len(answers) > 1 else answers[0]
        return original(address, port, family, type, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


def test_sends_an_encoded_request_and_returns_the_body(serve: Servers) -> None:
    url = serve(head(Content_Length=5) + b"image and more")
    assert fetch(f"{url}/a%20b/ü?q=1&r=x y#part") == b"image"
    request = serve.requests[0]
    assert request.startswith("GET /a%20b/%C3%BC?q=1&r=x%20y HTTP/1.1\r\n")
    assert f"\r\nHost: {url.removeprefix('http://')}\r\n" in request


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "192.0.0.192",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "localhost",
    ],
)
def test_rejects_private_addresses_in_every_notation(address: str) -> None:
    message = refusal(f"http://{address}/latest/meta-data", hosts=("*",))
    assert "expected a URL of an allowed host, got a host that is private or not on the list of hosts" in message
    assert "meta-data" not in message


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert fetching._is_public(ipaddress.ip_address(address))


def test_fetches_only_from_hosts_on_the_list(serve: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    url = serve(head() + b"image")
    port = url.rpartition(":")[2]
    hosts: tuple[str, ...]
    resolves(
        monkeypatch, {"store.example.com": ["127.0.0.1"], "elsewhere.org": ["127.0.0.1"], "public.org": ["8.8.8.8"]}
    )
    for hosts in (("127.0.0.0/8",), ("store.example.com",), ("*.EXAMPLE.com",), ("*", "store.example.com")):
        assert fetch(f"http://Store.Example.com:{port}/", hosts) == b"image"
    for hosts in (("*",), ("store.example.com",), ("*.example.com",), ("10.0.0.0/8",), ()):
        assert "not on the list" in refusal(f"http://elsewhere.org:{port}/", hosts=hosts)
    assert "not on the list" in refusal(f"http://public.org:{port}/", hosts=("store.example.com",))


def test_rejects_a_host_with_one_private_address_among_public_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: both)
    assert "private" in refusal("http://two-faced.org/", hosts=("*",))


def test_connects_to_the_address_that_was_checked(serve: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    good = serve(head() + b"image", "127.0.0.1")
    port = int(good.rpartition(":")[2])
    serve(head() + b"secret", "127.0.0.2", port)
    lookups = resolves(monkeypatch, {"changes.org": ["127.0.0.1", "127.0.0.2"]})
    assert fetch(f"http://changes.org:{port}/", hosts=("127.0.0.1/32",)) == b"image"
    assert lookups == ["changes.org"]
    assert "not on the list" in refusal(f"http://changes.org:{port}/", hosts=("127.0.0.1/32",))


def test_checks_redirects_like_the_first_url(serve: Servers) -> None:
    image = serve(head() + b"image")
    for location, message in {
        "http://169.254.169.254/latest/meta-data": "private",
        "http://[::ffff:10.0.0.1]/": "private",
        "file:///etc/passwd": "scheme 'file'",
        "gopher://127.0.0.1/": "scheme 'gopher'",
        "http://user:word@127.0.0.1/": "without a user name",
    }.items():
        assert message in refusal(serve(head("302 Found", Location=location)) + "/picture")
    assert fetch(serve(head("301 Moved", Location=f"{image}/a")) + "/picture") == b"image"
    assert fetch(serve(head("307 Moved", Location=f"//{image.removeprefix('http://')}/a"))) == b"image"
    for hops, ends in ((3, True), (4, False)):
        url = image
        for _ in range(hops):
            url = serve(head("302 Found", Location=url))
        if ends:
            assert fetch(url) == b"image"
        else:
            assert "at most 3 redirects" in refusal(url)


def test_a_redirect_to_itself_fails_after_three_redirects(serve: Servers) -> None:
    assert "at most 3 redirects" in refusal(serve(head("302 Found", Location="/again")))
    assert len(serve.requests) == 4


def test_stops_reading_an_endless_body_at_the_limit(serve: Servers) -> None:
    sent = 0

    def endless(client: socket.socket) -> None:
        nonlocal sent
        client.sendall(head())
        while True:
            sent += client.send(b"x" * 1000)

    assert len(fetch(serve(endless), max_bytes=100_000)) == 100_001  # ImageReader rejects a body over the limit
    time.sleep(0.2)
    assert sent < 10_000_000


@pytest.mark.parametrize("part", ["head", "body", "nothing"])
def test_a_slow_response_fails_after_the_timeout(serve: Servers, part: str) -> None:
    def drip(client: socket.socket) -> None:
        if part == "body":
            client.sendall(head(Content_Length=1000))
        while part != "nothing":
            client.sendall(b"H")
            time.sleep(0.05)
        time.sleep(10)

    start = time.monotonic()
    assert "within 1 s, got a slower response" in refusal(serve(drip), seconds=1)
    assert time.monotonic() - start < 4


def test_a_slow_body_without_a_length_fails_after_the_timeout(serve: Servers) -> None:
    def drip(client: socket.socket) -> None:
        client.sendall(head())
        while True:
            client.sendall(b"x")
            time.sleep(0.05)

    assert "a slower response" in refusal(serve(drip), seconds=1)


def test_a_wrong_content_length_fails_or_cuts_the_body(serve: Servers) -> None:
    assert fetch(serve(head(Content_Length=3) + b"image")) == b"ima"
    assert "malformed response (IncompleteRead)" in refusal(serve(head(Content_Length=10) + b"image"))
    assert "at most 1000 bytes, got 5000000000 bytes" in refusal(serve(head(Content_Length=5_000_000_000) + b"image"))
    assert fetch(serve(head(Content_Length=-1) + b"image")) == b"image"


def test_rejects_a_compressed_body_without_decompressing_it(serve: Servers) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    assert "a response with a Content-Encoding" in refusal(serve(head(Content_Encoding="gzip") + bomb), max_bytes=10**9)
    assert "Accept-Encoding: identity" in serve.requests[0]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"", "malformed response"),
        (b"nonsense\r\n\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "malformed response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "malformed response"),
        (head(Transfer_Encoding="chunked") + b"5\r\nim", "malformed response"),
        (head("404 Not Found"), "HTTP status 404"),
        (head("302 Found"), "HTTP status 302"),
        (head("500 Oh"), "HTTP status 500"),
    ],
    ids=str,
)
def test_rejects_broken_responses_without_repeating_the_url(serve: Servers, response: bytes, message: str) -> None:
    assert message in refusal(serve(response) + "/secret?token=1234")
    assert "secret" not in refusal(serve(response) + "/secret?token=1234")


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "http://[bad",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://a..b/",
        "http://" + "a" * 300 + "/",
        "http://ho st/",
        "http://user:word@127.0.0.1/",
        "http://127.0.0.1:1/",
        "http://no-such-host.invalid/",
        "http://\ud800/",
    ],
    ids=ascii,
)
def test_rejects_urls_that_cannot_be_fetched(url: str) -> None:
    assert "column 'image': expected a URL" in refusal(url)


def test_a_url_cannot_add_lines_to_the_request(serve: Servers) -> None:
    url = serve(head() + b"image")
    fetch(url + "/a\r\nX-Evil: 1\r\n\r\nGET /b")
    assert "X-Evil" not in serve.requests[0].split("\r\n", 1)[1]


def test_tls_verifies_the_host_name_and_not_the_address(
    tmp_path: Path, serve: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=safe.org"
    subprocess.run([*words.split(), "-addext", "subjectAltName=DNS:safe.org"], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        while True:
            try:
                plain, _ = listener.accept()
                with server.wrap_socket(plain, server_side=True) as client:
                    client.recv(4096)
                    client.sendall(head() + b"image")
            except OSError:
                if listener.fileno() < 0:
                    return

    threading.Thread(target=talk, daemon=True).start()
    resolves(monkeypatch, {"safe.org": ["127.0.0.1"], "other.org": ["127.0.0.1"]})
    port = listener.getsockname()[1]
    assert "SSLCertVerificationError" in refusal(f"https://safe.org:{port}/")
    monkeypatch.setattr(fetching, "_tls", lambda: ssl.create_default_context(cafile=str(certificate)))
    assert fetch(f"https://safe.org:{port}/") == b"image"
    assert "SSLCertVerificationError" in refusal(f"https://other.org:{port}/")
    listener.close()
