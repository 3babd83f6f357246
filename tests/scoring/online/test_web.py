"""HEAD, compressed bodies and pages of other origins, as HTTP clients and a browser find them on a real server."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import sync_playwright

from sam_endpoint.scoring.online.middleware.body import Inflater
from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.warm import python

KEY = "correct horse"
LIMIT = 2_000_000
AUTH = {"authorization": f"Bearer {KEY}"}
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
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The origin of a web server of its own, and the folder of its pages."""
    folder = tmp_path_factory.mktemp("pages")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}", folder
        web.shutdown()


@pytest.fixture(scope="module")
def served(
    packaged: Path, page: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """An endpoint with a key that the page's origin may use, and its process id."""
    port, log = free_port(), tmp_path_factory.mktemp("web") / "log"
    code = "import os, runpy, sys; print('process', os.getpid(), flush=True); sys.argv[0] = 'x'; "
    code += "runpy.run_module('sam_endpoint', run_name='__main__')"
    options = ["serve", "--port", str(port), "--model", str(packaged), "--api-keys", KEY, "--body-bytes", str(LIMIT)]
    options += ["--cors-origins", f"https://app.example.com, {page[0]}"]
    with server([python(), "-c", code, *options], port, "/ready", log, PYTHONPATH=str(ROOT)) as url:
        yield url, int(log.read_text().partition("process ")[2].split()[0])


@pytest.fixture(scope="module")
def url(served: tuple[str, int]) -> str:
    return served[0]


def post(url: str, path: str, data: bytes, **headers: str) -> requests.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(
        url + path, data=data, headers={**AUTH, "content-type": "application/json", **names}, timeout=60
    )


OPEN = ["/", "/ping", "/health", "/ready", "/version", "/docs", "/openapi.json", "/page/app.js"]


@pytest.mark.parametrize("path", [*OPEN, "/page/style.css", "/page/samples/coins.png", "/models"])
def test_head_answers_as_get_without_the_body(url: str, path: str) -> None:
    head, get = (requests.request(method, url + path, headers=AUTH, timeout=10) for method in ("HEAD", "GET"))
    assert head.status_code == get.status_code == 200 and head.content == b"" and get.content
    assert head.headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # counts this very request
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_head_where_there_is_nothing_to_get(url: str) -> None:
    assert requests.head(url + "/score", headers=AUTH, timeout=10).status_code == 405
    assert requests.head(url + "/nowhere", headers=AUTH, timeout=10).status_code == 404
    assert requests.head(url + "/models", timeout=10).status_code == 401


def without_times(answer: requests.Response) -> Any:
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
def test_a_gzip_body_is_read_as_a_plain_one(url: str, path: str, body: Any, encoding: str) -> None:
    data = json.dumps(body).encode()
    plain = post(url, path, data)
    assert plain.status_code == 200
    halves = gzip.compress(data[:300]) + gzip.compress(data[300:])
    for packed in (gzip.compress(data), halves):
        answer = post(url, path, packed, content_encoding=encoding)
        assert answer.status_code == 200, answer.text
        assert pictures.tolerant(without_times(answer)) == pictures.tolerant(without_times(plain))


def test_a_gzip_form(url: str) -> None:
    made = requests.Request(
        "POST", url, files={"image": pictures.disc()[0]}, data={"box": "[68, 38, 153, 123]"}
    ).prepare()
    assert isinstance(made.body, bytes)
    headers = {"content_type": str(made.headers["content-type"]), "content_encoding": "gzip"}
    answer = post(url, "/segment-anything-2", gzip.compress(made.body), **headers)
    assert answer.status_code == 200 and set(answer.json()) == {"masks", "scores", "logits"}


def test_metrics_need_a_key_where_there_are_keys(url: str) -> None:
    assert requests.get(f"{url}/metrics", timeout=10).status_code == 401
    assert "sam_requests_total" in requests.get(f"{url}/metrics", headers=AUTH, timeout=10).text


def test_no_browser_guesses_a_type_and_the_pages_run_their_own_scripts_only(url: str) -> None:
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
def test_content_types_that_a_route_does_not_speak(url: str, path: str, kind: str) -> None:
    answer = post(url, path, json.dumps(SCORE).encode(), content_type=kind)
    assert answer.status_code == 415 and "content-type: expected" in answer.text


def test_pages_of_other_sites_may_not_send_requests(url: str) -> None:
    body = json.dumps(SCORE).encode()
    for site in ("cross-site", "same-site"):
        answer = post(url, "/score", body, sec_fetch_site=site, origin="https://evil.example")
        assert answer.status_code == 403 and "--cors-origins" in answer.json()["error"]["message"]
    for site in ("same-origin", "none"):
        assert post(url, "/score", body, sec_fetch_site=site).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_keys_beyond_ascii(packaged: Path, tmp_path: Path, encoding: str) -> None:
    key, port = "schlüssel", free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT), SAM_API_KEYS=key) as base:
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


@pytest.mark.parametrize(("path", "where"), SHAPES)
def test_wrong_encodings_in_each_dialects_shape(url: str, path: str, where: tuple[str, ...]) -> None:
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
    for data, encoding, status, said in wrong:
        answer = post(url, path, data, content_encoding=encoding, **kind)
        message: Any = answer.json()
        for name in where:
            message = message[name]
        assert (answer.status_code, said in message) == (status, True), (encoding, answer.text)
    assert post(url, path, gzip.compress(b" " * LIMIT), content_encoding="gzip").status_code != 413


def memory(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def test_a_gzip_bomb_is_refused_early_and_takes_no_memory(served: tuple[str, int]) -> None:
    url, process = served
    post(url, "/score", gzip.compress(b" " * (LIMIT + 1)), content_encoding="gzip")
    before, compressor = memory(process), zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(1500)) + compressor.flush()
    assert len(bomb) < LIMIT  # 1.5 GB in 1.5 MB
    started = time.monotonic()
    answer = post(url, "/score", bomb, content_encoding="gzip")
    assert answer.status_code == 413 and time.monotonic() - started < 2
    assert memory(process) - before < 20 * LIMIT


def test_inflating_stops_at_the_limit() -> None:
    inflater = Inflater()
    assert len(inflater.inflate(gzip.compress(bytes(10**7)), 1001)) == 1001
    many = gzip.compress(b"ab") * 100
    whole, byte_by_byte = Inflater(), Inflater()
    assert whole.inflate(many, 1000) == b"ab" * 100 and whole.complete
    assert b"".join(byte_by_byte.inflate(many[i : i + 1], 1000) for i in range(len(many))) == b"ab" * 100


def preflight(url: str, origin: str, **headers: str) -> requests.Response:
    names = {"origin": origin, "access-control-request-method": "POST"}
    names |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.options(f"{url}/score", headers=names, timeout=10)


def test_preflights_need_no_key(url: str) -> None:
    asked = preflight(url, "https://app.example.com", access_control_request_headers="authorization,content-type")
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://app.example.com"
    assert {"authorization", "x-api-key"} <= set(asked.headers["access-control-allow-headers"].lower().split(", "))
    assert "access-control-allow-credentials" not in asked.headers
    for origin in ("https://other.example.com", "https://app.example.com.evil.net", "http://app.example.com", "null"):
        refused = preflight(url, origin)
        assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers


def test_answers_and_errors_can_be_read_by_allowed_origins_only(url: str) -> None:
    for origin, allowed in (("https://app.example.com", True), ("https://other.example.com", False)):
        for headers, status in ((AUTH, 200), ({}, 401)):
            answer = requests.post(f"{url}/score", json=SCORE, headers={**headers, "origin": origin}, timeout=60)
            assert answer.status_code == status
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed
    exposed = requests.get(f"{url}/models", headers={**AUTH, "origin": "https://app.example.com"}, timeout=10)
    assert {"x-answered-by", "x-request-id"} <= set(exposed.headers["access-control-expose-headers"].split(", "))


def test_a_browser_page_of_another_origin(url: str, page: tuple[str, Path]) -> None:
    origin, folder = page
    (folder / "index.html").write_text(PAGE.replace("URL", url).replace("BODY", json.dumps(SCORE)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(f"{origin}/index.html")
        answer = tab.evaluate(f"send({KEY!r})")
        assert answer["status"] == 200 and answer["model"] == "sam-tiny" and len(answer["id"]) == 32
        assert answer["content"][0]["predictions"]
        refused = tab.evaluate("send('')")
        assert refused["status"] == 401 and "an API key is needed" in refused["content"]["error"]["message"]
        tab.goto(f"{origin.replace('127.0.0.1', 'localhost')}/index.html")  # another origin, which is not allowed
        assert tab.evaluate(f"send({KEY!r}).catch(error => error.name)") == "TypeError"
        browser.close()


@pytest.mark.parametrize(("options", "allowed"), [([], None), (["--cors-origins", "*"], "*")])
def test_without_and_with_every_origin(packaged: Path, tmp_path: Path, options: list[str], allowed: str | None) -> None:
    port = free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged), *options]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)) as url:
        answer = requests.get(f"{url}/models", headers={"origin": "https://any.example.com"}, timeout=10)
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in answer.headers
        assert preflight(url, "https://any.example.com").status_code == (200 if allowed else 405)
