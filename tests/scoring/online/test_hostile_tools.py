"""Hostile values in every field of the routes of labelling tools, Triton's clients and the page.

Each request is answered soon and without a server error, and an error has the form of its dialect. Afterwards the
endpoint holds no memory, and answers as before.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import serve_endpoint
from tests.model.servers import Servers, head

MEMORY = 64_000_000
IMAGE_BYTES = 20_000_000
PICTURE = pictures.to_bytes(Image.fromarray(pictures.clutter(60, 80)))
TEXT = pictures.to_text(PICTURE)
DATA = f"data:image/png;base64,{TEXT}"
CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="a"/>'
    "</BrushLabels></View>"
)
KEYPOINT = {
    "type": "keypointlabels",
    "to_name": "image",
    "is_positive": 1,
    "value": {"x": 20, "y": 20, "keypointlabels": ["a"]},
}
RECTANGLE = {"type": "rectanglelabels", "to_name": "image", "value": {"x": 9, "y": 9, "width": 40, "height": 40}}
TASKS: dict[str, Any] = {"tasks": [{"id": 1, "data": {"image": DATA}}], "label_config": CONFIG, "project": "1.1"}
TENSOR = {"shape": [1, 1], "datatype": "BYTES", "parameters": {}}
INFER = "/v2/models/sam-tiny/infer"
BODIES: dict[str, dict[str, Any]] = {
    "/setup": {"project": "1.1", "hostname": "http://127.0.0.1:9", "access_token": "a"},
    "/predict": {**TASKS, "params": {"context": {"result": [KEYPOINT, RECTANGLE]}}},
    "/embed_tasks": TASKS,
    "/webhook": {"action": "ANNOTATION_CREATED"},
    "/": {"image": TEXT, "pos_points": [[9, 9]], "neg_points": [[30, 30]], "obj_bbox": [[5, 5], [40, 40]]},
    "/v1/predict": {
        "model": "sam-tiny",
        "image": DATA,
        "params": {
            "conf_threshold": 0.1,
            "epsilon_factor": 0.001,
            "text_prompt": None,
            "marks": [
                {"type": "point", "data": [9, 9], "label": 1},
                {"type": "rectangle", "data": [5, 5, 40, 40], "label": 1},
            ],
        },
    },
    INFER: {
        "id": "7",
        "inputs": [
            {"name": "image", **TENSOR, "data": [TEXT]},
            {"name": "input_points", **TENSOR, "data": ["[[[9, 9]]]"]},
        ],
        "outputs": [{"name": "predictions", "parameters": {"binary_data": False}}],
        "parameters": {"mask_encoding": "rle", "binary_data_output": False},
    },
    "/image": {"url": "http://127.0.0.1:9/a.png"},
}  # fmt: skip
# Values in place of a field, as JSON texts: some are no value of Python.
VALUES = (
    *("null", "true", "{}", "[]", '""', "-1", "NaN", "-Infinity", "1e308", "4611686018427387904", "1" + "0" * 400),
    *('"\\u0000"', '"\\ud800"', '"' + "x" * 300_000 + '"', "[" * 500 + "]" * 500, f"[{','.join(['[1,2]'] * 3000)}]"),
    *('{"__proto__": {"a": 1}, "": [{}]}', '"' + "9" * 5000 + '"'),
)  # fmt: skip
# How many of the requests a route rejects at least. Some routes ignore most of their fields.
MIN_REJECTED = {"/setup": 10, "/webhook": 1, "/embed_tasks": 30, "/image": 15}
HOLE = "@HOLE@"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with little memory, which may fetch images of 127.0.0.2, and return its URL."""
    options: list[object] = ["--hosts", "127.0.0.2", "--public-metrics", "true", "--memory", MEMORY, "--points", 16]
    options += ["--body-bytes", 8_000_000, "--image-bytes", IMAGE_BYTES]
    with serve_endpoint(tmp_path_factory.mktemp("hostile") / "log", *options) as base:
        yield base


@pytest.fixture
def serve() -> Iterator[Servers]:
    """Return a function that starts servers of images, and stop the servers after the test."""
    servers = Servers()
    yield servers
    servers.close()


def holes(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value, each with a hole in one place."""
    yield HOLE
    if isinstance(value, dict):
        for name, item in value.items():
            yield from ({**value, name: pierced} for pierced in holes(item))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from ([*value[:i], pierced, *value[i + 1 :]] for pierced in holes(item))


def message_of(path: str, answer: requests.Response) -> str | None:
    """Return the message of an error in the form of the route's dialect, or None if the request succeeded."""
    if path == "/":
        return None if answer.status_code == 200 else answer.text
    content = answer.json() if answer.content and "json" in answer.headers["content-type"] else {}
    if path == "/v1/predict":
        assert answer.status_code == 200
        return None if content["success"] else str(content["error"]["message"])
    if answer.status_code in (200, 201):
        return None
    if path == "/image":
        return str(content["message"])
    assert set(content) == {"error"}
    return str(content["error"])


def held(url: str) -> float:
    """Return how many bytes of the memory budget are in use."""
    found = re.search(r"^sam_memory_bytes (\S+)", requests.get(f"{url}/metrics", timeout=20).text, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize("path", BODIES)
def test_no_value_in_any_field_breaks_a_route(url: str, path: str) -> None:
    rejected = 0
    with requests.Session() as session:
        before = message_of(path, session.post(url + path, json=BODIES[path], timeout=20))
        assert (before is None) is (path != "/image"), before
        for pierced in map(json.dumps, holes(BODIES[path])):
            for value in VALUES:
                body = pierced.replace(f'"{HOLE}"', value)
                answer = session.post(url + path, data=body.encode(), timeout=20)
                assert answer.status_code < 500, (body[:300], answer.text[:300])
                message = message_of(path, answer)
                rejected += message is not None
                assert message is None or 10 < len(message) < 1000, body[:300]
        assert message_of(path, session.post(url + path, json=BODIES[path], timeout=20)) == before
    assert rejected >= MIN_REJECTED.get(path, 100)
    assert held(url) == 0


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe{\x00}\x00", b"[" * 90_000, b'{"a":' * 90_000, b"{}" * 9, b"0" * 5000]
)
def test_no_body_breaks_a_route(url: str, path: str, body: bytes) -> None:
    answer = requests.post(url + path, data=body, timeout=20)
    assert message_of(path, answer) or path == "/webhook", answer.text[:300]
    assert answer.status_code < 500


def test_no_binary_tensor_breaks_the_route(url: str) -> None:
    """Each number of the binary extension is replaced: the length of the JSON text, of a tensor and of an element."""
    element = struct.pack("<I", len(PICTURE)) + PICTURE
    sizes: tuple[Any, ...] = (
        -1,
        0,
        1,
        len(element) - 1,
        len(element) + 1,
        2**31,
        2**63,
        10**30,
        "5",
        None,
        True,
        1.5,
        [],
        {},
    )
    for size in (len(element), *sizes):
        image = {**TENSOR, "name": "image", "parameters": {"binary_data_size": size}}
        text = json.dumps({"inputs": [image, {"name": "input_points", **TENSOR, "data": ["[[[9, 9]]]"]}]}).encode()
        for length in (len(text), 0, 1, len(text) - 1, len(text) + 1, 10**30):
            for data in (
                element,
                struct.pack("<I", 2**32 - 1) + PICTURE,
                struct.pack("<I", 0) * 3000,
                b"",
                element[:3],
            ):
                headers = {"inference-header-content-length": str(length)}
                answer = requests.post(url + INFER, data=text + data, headers=headers, timeout=20)
                is_good = (size, length, data) == (len(element), len(text), element)
                assert answer.status_code == (200 if is_good else 400), (size, length, data[:9], answer.text[:300])
    assert held(url) == 0


def fetched(url: str, address: str) -> requests.Response:
    """Return the answer of the page's route for images by URL."""
    return requests.post(f"{url}/image", json={"url": address}, timeout=60)


def test_image_returns_only_images_of_allowed_hosts(url: str, serve: Servers) -> None:
    image = serve(head(Content_Length=len(PICTURE)) + PICTURE, "127.0.0.2")
    answer = fetched(url, f" {image}/a.png ")
    assert answer.status_code == 200 and answer.content == PICTURE
    assert (
        answer.headers["content-type"] == "application/octet-stream" and answer.headers["cache-control"] == "no-store"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    private = serve(head(Content_Length=len(PICTURE)) + PICTURE, "127.0.0.1")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>SECRET</script></svg>'
    for address, said in (
        (f"{private}/SECRET.png", "a host that is private or not on the list of hosts"),
        (image.replace("127.0.0.2", "2130706434"), "a host that is private or not on the list of hosts"),
        ("http://169.254.169.254/SECRET", "a host that is private or not on the list of hosts"),
        (serve(head("302 Found", Location=f"{private}/SECRET"), "127.0.0.2"), "private or not on the list of hosts"),
        (serve(head("302 Found", Location="file:///SECRET"), "127.0.0.2"), "a URL that redirects to http or https"),
        (image.replace("//", "//SECRET:SECRET@"), "without a user name"),
        (serve(head("404 Not Found", Content_Length=0), "127.0.0.2"), "HTTP status 404"),
        (serve(head(Content_Length=0), "127.0.0.2"), "an empty image"),
        (serve(head(Content_Length=len(svg)) + svg, "127.0.0.2"), "bytes of another kind"),
        (serve(head(Content_Length=6) + b"SECRET", "127.0.0.2"), "a file of 6 bytes of another kind"),
        (serve(head(Content_Length=IMAGE_BYTES + 1), "127.0.0.2"), f"at most {IMAGE_BYTES} bytes"),
        (
            serve(head(Content_Length=9, Content_Encoding="gzip") + b"SECRET...", "127.0.0.2"),
            "an uncompressed response",
        ),
        ("file:///etc/passwd", "a URL with scheme 'file', which is not allowed"),
        ("SECRET://host/a.png", "a URL with an unknown scheme, which is not allowed"),
        (DATA, "expected an http(s) URL, got text of"),
        ("SECRET", "expected an http(s) URL, got text of 6 characters"),
        ("http://", "a URL with a host"),
        ("http://[::1/SECRET", "expected a URL that returns an image"),
        (f"http://{'SECRET.' * 60}com/", "expected a URL that returns an image"),
        ("http://127.0.0.2:99999/SECRET", "expected a URL that returns an image"),
        ("http://127.0.0.2:9/SECRET\r\nX: y", "expected a URL that returns an image"),
    ):
        answer = fetched(url, address)
        assert answer.status_code == 400 and said in answer.json()["message"], (address, answer.text)
        assert "'url'" in answer.json()["message"] or "a redirect" in answer.text, answer.text
        assert "SECRET" not in answer.text
    assert held(url) == 0


def test_image_holds_the_memory_of_what_it_fetches(url: str, serve: Servers) -> None:
    """Three images of 20 MB fit into the memory of 64 MB, and a fourth does not. Then all bytes are released."""
    release = threading.Event()
    large = b"\x89PNG" + bytes(IMAGE_BYTES - 4)

    def send_all_but_one_byte(client: socket.socket) -> None:
        client.sendall(head(Content_Length=len(large)) + large[:-1])
        release.wait(60)
        client.sendall(large[-1:])

    address = serve(send_all_but_one_byte, "127.0.0.2")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(fetched, url, address) for _ in range(3)]
        deadline = time.monotonic() + 20
        while held(url) < 3 * (IMAGE_BYTES - 2**17):  # the endpoint waits for the end of the last part
            assert time.monotonic() < deadline
        rejected = fetched(url, address)
        release.set()
        assert [answer.result().content == large for answer in answers] == [True] * 3
    assert rejected.status_code == 503 and rejected.headers["retry-after"]
    assert held(url) == 0
