"""HTTP features of the endpoint: HEAD, compressed bodies, content types, keys, headers, and other origins."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser

from benchmarks import memory
from sam_endpoint.scoring.online.middleware.body import PIECE, Inflater
from tests import pictures
from tests.conftest import serve_endpoint
from tests.scoring.online.endpoint import AUTH, KEY, error_message

LIMIT = 2_000_000
TEXT = pictures.to_text(pictures.to_bytes(Image.fromarray(pictures.clutter(40, 50))))
SCORE: dict[str, Any] = {
    "input_data": [{"image": TEXT, "input_points": [[[9, 9]]]}],
    "params": {"mask_encoding": "rle"},
}
FLAT: dict[str, Any] = {"image": {"type": "base64", "value": TEXT}, "point_coords": [[9, 9]], "point_labels": [1]}
PAGE = """<script>
  const send = async (key) => {
    const headers = {"content-type": "application/json", ...(key ? {authorization: `Bearer ${key}`} : {})};
    const answer = await fetch("URL/score", {method: "POST", headers, body: JSON.stringify(BODY)});
    return {status: answer.status, model: answer.headers.get("x-answered-by"), id: answer.headers.get("x-request-id"),
            content: await answer.json()};
  };
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A request handler that serves files and logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
        pass


@pytest.fixture(scope="module")
def other_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a web server on another origin, and return the origin and the folder of its pages."""
    folder = tmp_path_factory.mktemp("pages")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}", folder
        web.shutdown()


@pytest.fixture(scope="module")
def endpoint_process(
    packaged: Path, other_site: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """Run an endpoint with a key, which allows requests of the other site, and return its URL and its process id."""
    log = tmp_path_factory.mktemp("web") / "log"
    code = "import os, runpy, sys; print('process', os.getpid(), flush=True); sys.argv[0] = 'x'; "
    code += "runpy.run_module('sam_endpoint', run_name='__main__')"
    options = ["--model", packaged, "--api-keys", KEY, "--body-bytes", LIMIT]
    options += ["--cors-origins", f"https://app.example.com, {other_site[0]}"]
    with serve_endpoint(log, *options, program=["-c", code]) as url:
        yield url, int(log.read_text().partition("process ")[2].split()[0])


@pytest.fixture(scope="module")
def url(endpoint_process: tuple[str, int]) -> str:
    """Return the URL of the endpoint."""
    return endpoint_process[0]


def post(url: str, path: str, data: bytes, **headers: str) -> requests.Response:
    """Send a body with a key, by default as JSON, and return the response. In names of headers, `_` stands for `-`."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(
        url + path, data=data, headers={**AUTH, "content-type": "application/json", **names}, timeout=60
    )


OPEN = ["/", "/ping", "/health", "/ready", "/version", "/docs", "/openapi.json", "/page/app.js"]


@pytest.mark.parametrize("path", [*OPEN, "/page/style.css", "/page/samples/coins.png", "/models"])
def test_head_has_the_headers_of_get_and_no_body(url: str, path: str) -> None:
    head, get = (requests.request(method, url + path, headers=AUTH, timeout=10) for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code == 200 and head.content == b"" and get.content
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # the metrics count this request
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_head_has_the_status_of_get_without_a_route_or_a_key(url: str) -> None:
    assert requests.head(url + "/score", headers=AUTH, timeout=10).status_code == 405
    assert requests.head(url + "/nowhere", headers=AUTH, timeout=10).status_code == 404
    assert requests.head(url + "/models", timeout=10).status_code == 401


def without_times(answer: requests.Response) -> Any:
    """Return the JSON value of a response without its time."""
    content = answer.json()
    return {name: value for name, value in content.items() if name != "time"} if isinstance(content, dict) else content


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", SCORE),
        ("/invocations", {"dataframe_records": SCORE["input_data"], "params": SCORE["params"]}),
        ("/sam/segment_image", FLAT),
    ],
)
def test_a_gzip_body_has_the_same_response_as_a_plain_body(url: str, path: str, body: Any, encoding: str) -> None:
    data = json.dumps(body).encode()
    plain = post(url, path, data)
    assert plain.status_code == 200
    halves = gzip.compress(data[:300]) + gzip.compress(data[300:])
    for packed in (gzip.compress(data), halves):
        answer = post(url, path, packed, content_encoding=encoding)
        assert answer.status_code == 200, answer.text
        assert pictures.tolerant(without_times(answer)) == pictures.tolerant(without_times(plain))


def test_accepts_a_gzip_form(url: str) -> None:
    form = requests.Request(
        "POST", url, files={"image": pictures.disc()[0]}, data={"box": "[68, 38, 153, 123]"}
    ).prepare()
    assert isinstance(form.body, bytes)
    headers = {"content_type": str(form.headers["content-type"]), "content_encoding": "gzip"}
    answer = post(url, "/segment-anything-2", gzip.compress(form.body), **headers)
    assert answer.status_code == 200 and set(answer.json()) == {"masks", "scores", "logits"}


def test_metrics_need_a_key_if_the_endpoint_has_keys(url: str) -> None:
    assert requests.get(f"{url}/metrics", timeout=10).status_code == 401
    assert "sam_requests_total" in requests.get(f"{url}/metrics", headers=AUTH, timeout=10).text


def test_headers_forbid_type_guessing_and_foreign_scripts(url: str) -> None:
    for path in ("/", "/docs", "/health", "/score", "/page/app.js"):
        assert requests.get(url + path, timeout=10).headers["x-content-type-options"] == "nosniff"
    policy = requests.get(f"{url}/docs", timeout=10).headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/score", "text/plain"),
        ("/score", "application/vnd.api+json"),
        ("/score", "application/x-www-form-urlencoded"),
        ("/sam2/embed_image", "text/plain"),
        ("/sam/segment_image", "application/merge-patch+json"),
        ("/invocations", "text/plain"),
        ("/invocations", "multipart/form-data; boundary=x"),
        ("/segment-anything-2", "application/json"),
        ("/predict", "text/plain"),
        ("/v2/models/sam-tiny/infer", "text/plain"),
        ("/", "application/x-www-form-urlencoded"),
    ],
)
def test_rejects_content_types_that_a_route_does_not_support(url: str, path: str, kind: str) -> None:
    answer = post(url, path, json.dumps(SCORE).encode(), content_type=kind)
    assert answer.status_code == 415 and "content-type: expected" in answer.text


def test_rejects_requests_of_other_sites(url: str) -> None:
    body = json.dumps(SCORE).encode()
    for site in ("cross-site", "same-site"):
        answer = post(url, "/score", body, sec_fetch_site=site, origin="https://evil.example")
        assert answer.status_code == 403 and "--cors-origins" in answer.json()["error"]["message"]
    for site in ("same-origin", "none"):
        assert post(url, "/score", body, sec_fetch_site=site).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_keys_may_contain_non_ascii_characters(packaged: Path, tmp_path: Path, encoding: str) -> None:
    key = "schlüssel"
    with serve_endpoint(tmp_path / "log", "--model", packaged, SAM_API_KEYS=key) as base:
        headers: dict[str, str | bytes] = {"x-api-key": key.encode(encoding)}
        assert requests.get(f"{base}/models", headers=headers, timeout=10).status_code == 200
        assert requests.get(f"{base}/models", params={"api_key": key}, timeout=10).status_code == 200
        body: Any = {"api_key": key, "image_id": "none"}
        assert requests.post(f"{base}/sam2/segment_image", json=body, timeout=10).status_code == 404
        assert requests.get(f"{base}/models", headers={"x-api-key": "schlussel"}, timeout=10).status_code == 401


SHAPES = [
    ("/score", ("error", "message")),
    ("/invocations", ("message",)),
    ("/sam2/embed_image", ("message",)),
    ("/segment-anything-2", ("detail", "msg")),
    ("/predict", ("error",)),
    ("/v2/models/sam-tiny/infer", ("error",)),
]


@pytest.mark.parametrize(("path", "keys"), SHAPES)
def test_bad_encodings_are_errors_of_the_dialect(url: str, path: str, keys: tuple[str, ...]) -> None:
    packed = gzip.compress(json.dumps(SCORE).encode())
    kind = {"content_type": "multipart/form-data; boundary=x"} if path == "/segment-anything-2" else {}
    wrong = [
        (packed, "br", 415, "expected gzip or none"),
        (zlib.compress(b"{}"), "deflate", 415, "expected gzip or none"),
        (packed, "gzip, gzip", 415, "expected gzip or none"),
        (b"{}", "gzip", 400, "bytes that are not gzip"),
        (packed[:-8], "gzip", 400, "one that ends early"),
        (packed[:40], "gzip", 400, "one that ends early"),
        (packed + b"more", "gzip", 400, "bytes that are not gzip"),
        (b"", "gzip", 400, "one that ends early"),
        (gzip.compress(b" " * (LIMIT + 1)), "gzip", 413, f"expected a request body of at most {LIMIT:,} bytes"),
    ]
    for data, encoding, status, message in wrong:
        answer = post(url, path, data, content_encoding=encoding, **kind)
        found = message in error_message(answer, keys)
        assert (answer.status_code, found) == (status, True), (encoding, answer.text)
    assert post(url, path, gzip.compress(b" " * LIMIT), content_encoding="gzip").status_code != 413


def test_rejects_a_gzip_bomb_early_without_using_memory(endpoint_process: tuple[str, int]) -> None:
    url, process = endpoint_process
    post(url, "/score", gzip.compress(b" " * (LIMIT + 1)), content_encoding="gzip")
    before, compressor = memory.peak(process), zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(1500)) + compressor.flush()
    assert len(bomb) < LIMIT  # 1.5 MB that decompress to 1.5 GB
    started = time.monotonic()
    answer = post(url, "/score", bomb, content_encoding="gzip")
    assert answer.status_code == 413 and time.monotonic() - started < 2
    assert memory.peak(process) - before < 20 * LIMIT


def test_a_body_is_decompressed_in_pieces() -> None:
    inflater = Inflater()
    inflater.feed(gzip.compress(bytes(10**7)))
    assert PIECE <= len(inflater.inflate()) < 2 * PIECE and inflater.has_more
    members = gzip.compress(b"ab") * 100
    whole, byte_by_byte = Inflater(), Inflater()
    whole.feed(members)
    assert whole.inflate() == b"ab" * 100 and whole.complete and not whole.has_more
    inflated = b""
    for i in range(len(members)):
        byte_by_byte.feed(members[i : i + 1])
        inflated += byte_by_byte.inflate()
    assert inflated == b"ab" * 100 and byte_by_byte.complete


def preflight(url: str, origin: str, **headers: str) -> requests.Response:
    """Send the preflight request that a browser sends before a request of another origin.

    In names of headers, `_` stands for `-`.
    """
    names = {"origin": origin, "access-control-request-method": "POST"}
    names |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.options(f"{url}/score", headers=names, timeout=10)


def test_preflights_need_no_key_and_succeed_for_allowed_origins(url: str) -> None:
    allowed = preflight(url, "https://app.example.com", access_control_request_headers="authorization,content-type")
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example.com"
    assert {"authorization", "x-api-key"} <= set(allowed.headers["access-control-allow-headers"].lower().split(", "))
    assert "access-control-allow-credentials" not in allowed.headers
    for origin in ("https://other.example.com", "https://app.example.com.evil.net", "http://app.example.com", "null"):
        refused = preflight(url, origin)
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers


def test_only_allowed_origins_can_read_responses_and_errors(url: str) -> None:
    for origin, allowed in (("https://app.example.com", True), ("https://other.example.com", False)):
        for headers, status in ((AUTH, 200), ({}, 401)):
            answer = requests.post(f"{url}/score", json=SCORE, headers={**headers, "origin": origin}, timeout=60)
            assert answer.status_code == status
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    exposed = requests.get(f"{url}/models", headers={**AUTH, "origin": "https://app.example.com"}, timeout=10)
    assert {"x-answered-by", "x-request-id"} <= set(exposed.headers["access-control-expose-headers"].split(", "))


def test_a_page_of_an_allowed_origin_works_in_a_browser(
    browser: Browser, url: str, other_site: tuple[str, Path]
) -> None:
    origin, folder = other_site
    (folder / "index.html").write_text(PAGE.replace("URL", url).replace("BODY", json.dumps(SCORE)))
    tab = browser.new_page()
    tab.goto(f"{origin}/index.html")
    answer = tab.evaluate(f"send({KEY!r})")
    assert answer["status"] == 200 and answer["model"] == "sam-tiny" and len(answer["id"]) == 32
    assert answer["content"][0]["predictions"]
    refused = tab.evaluate("send('')")
    assert refused["status"] == 401 and "an API key is needed" in refused["content"]["error"]["message"]
    tab.goto(f"{origin.replace('127.0.0.1', 'localhost')}/index.html")  # an origin that is not allowed
    assert tab.evaluate(f"send({KEY!r}).catch(error => error.name)") == "TypeError"
    tab.close()


@pytest.mark.parametrize(("options", "allowed"), [([], None), (["--cors-origins", "*"], "*")])
def test_allows_no_other_origin_by_default_and_every_origin_with_an_asterisk(
    packaged: Path, tmp_path: Path, options: list[str], allowed: str | None
) -> None:
    with serve_endpoint(tmp_path / "log", "--model", packaged, *options) as url:
        answer = requests.get(f"{url}/models", headers={"origin": "https://any.example.com"}, timeout=10)
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in answer.headers
        assert preflight(url, "https://any.example.com").status_code == (200 if allowed else 405)
