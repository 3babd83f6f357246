"""The endpoint behind a real nginx, under a path prefix, as browser apps of others find it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import sync_playwright
from pydantic import ValidationError

from sam_endpoint.scoring.online.settings import EndpointSettings
from tests import pictures
from tests.conftest import free_port, serve_endpoint, server

PREFIX = "/tools/segment"
ORIGIN = "https://app.example.com"
LIMIT = 2_000_000
SCORE: dict[str, Any] = {
    "input_data": [{"image": pictures.to_text(pictures.disc()[0]), "input_points": [[[110, 80]]]}],
    "params": {"mask_encoding": "rle"},
}
# `location` with a path in `proxy_pass` removes the prefix, without one it keeps the prefix.
CONFIG = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off; client_max_body_size 10m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  proxy_set_header Host $http_host; proxy_redirect off;
  server {{
    listen 127.0.0.1:{port};
    location = /alive {{ return 200; }}
    location {prefix}/ {{ proxy_pass http://127.0.0.1:{backend}; }}
  }}
  server {{
    listen 127.0.0.1:{stripping};
    location {prefix}/ {{ proxy_pass http://127.0.0.1:{backend}/; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs of the endpoint: behind a proxy that keeps the prefix, behind one that removes it, and its own."""
    folder, port, stripping = tmp_path_factory.mktemp("proxy"), free_port(), free_port()
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")
    assert nginx, "nginx is not installed (apt-get install nginx-light)"
    options = ["--root-path", PREFIX, "--cors-origins", ORIGIN, "--body-bytes", LIMIT]
    with serve_endpoint(folder / "log", *options) as direct:
        ports = {"port": port, "stripping": stripping, "backend": direct.rpartition(":")[2]}
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, prefix=PREFIX, **ports))
        command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with server(command, port, "/alive", folder / "nginx.log"):
            yield {
                "kept": f"http://127.0.0.1:{port}{PREFIX}",
                "removed": f"http://127.0.0.1:{stripping}{PREFIX}",
                "direct": direct,
            }


@pytest.fixture(params=["kept", "removed"])
def url(proxied: dict[str, str], request: pytest.FixtureRequest) -> str:
    return proxied[request.param]


def test_every_dialect_is_reached(url: str) -> None:
    answer = requests.post(f"{url}/score", json=SCORE, timeout=60)
    assert answer.status_code == 200 and answer.json()[0]["predictions"]
    assert requests.get(f"{url}/v2/health/ready", timeout=10).json() == {"ready": True}
    assert requests.get(f"{url}/v1/models", timeout=10).json()["success"] is True
    image = SCORE["input_data"][0]["image"]
    interaction = requests.post(f"{url}/", json={"image": image, "pos_points": [[110, 80]]}, timeout=60)
    assert set(interaction.json()) == {"mask"}
    for path, said in (("/v2/x", {"error"}), ("/v1/x", {"success", "error"}), ("/sam2/x", {"message"})):
        assert set(requests.get(url + path, timeout=10).json()) == said  # each error in its dialect's shape


def test_head_options_and_preflights(url: str) -> None:
    for path in ("/", "/models", "/v2", "/health"):
        head, get = (requests.request(method, url + path, timeout=10) for method in ("HEAD", "GET"))
        assert head.status_code == get.status_code == 200 and head.content == b""
        assert head.headers["content-length"] == str(len(get.content))
    assert requests.options(f"{url}/score", timeout=10).status_code == 405
    asked = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "token"}
    for path in ("/score", "/v1/predict", "/predict", "/v2/models/sam-tiny/infer", "/"):
        allowed = requests.options(url + path, headers=asked, timeout=10)
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == ORIGIN
        other = requests.options(url + path, headers={**asked, "origin": "https://other.example.com"}, timeout=10)
        assert other.status_code == 400 and "access-control-allow-origin" not in other.headers


def test_compressed_bodies(url: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip", "origin": ORIGIN}
    packed = requests.post(f"{url}/score", data=gzip.compress(json.dumps(SCORE).encode()), headers=headers, timeout=60)
    assert packed.status_code == 200 and packed.headers["access-control-allow-origin"] == ORIGIN
    for path in ("/score", "/predict", "/v1/predict", "/v2/models/sam-tiny/infer", "/"):
        bomb = requests.post(url + path, data=gzip.compress(bytes(LIMIT + 1)), headers=headers, timeout=60)
        expected = 200 if path == "/v1/predict" else 413  # X-AnyLabeling's errors have status 200
        assert bomb.status_code == expected and f"at most {LIMIT:,} bytes" in bomb.text


def test_redirects_keep_the_prefix(url: str) -> None:
    answer = requests.get(f"{url}/docs/", timeout=10, allow_redirects=False)
    assert answer.status_code == 307 and answer.headers["location"] == f"{url}/docs"


def test_the_pages_work_in_a_browser(url: str) -> None:
    described = requests.get(f"{url}/openapi.json", timeout=10).json()
    assert described["servers"] == [{"url": PREFIX}]
    failed: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
        tab.goto(f"{url}/docs")
        tab.wait_for_selector("text=/score")
        tab.goto(f"{url}/")
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("fetch('models').then(answer => answer.status)") == 200
        browser.close()
    assert not failed


def test_the_path_itself_is_served_too(proxied: dict[str, str]) -> None:
    """Only what begins with the whole prefix loses it."""
    for path, status in (
        ("/ready", 200),
        (f"{PREFIX}/ready", 200),
        (f"{PREFIX}s/ready", 404),
        (f"/a{PREFIX}/ready", 404),
    ):
        assert requests.get(proxied["direct"] + path, timeout=10).status_code == status


@pytest.mark.parametrize("prefix", ["segment", "/segment/", "/", "//a", "/a?b", "https://host/segment"])
def test_wrong_prefixes(prefix: str) -> None:
    with pytest.raises(ValidationError, match="root_path"):
        EndpointSettings(root_path=prefix)
