"""Faults: shortage of memory, defects, disconnected and slow clients, and a broken store of embeddings."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import ROOT, serve_endpoint
from tests.scoring.online.endpoint import in_flight, score_click

BODIES: dict[str, Any] = {
    "/score": lambda image: {"input_data": [{"image": image, "input_points": [[[9, 9]]]}]},
    "/invocations": lambda image: {"dataframe_records": [{"image": image, "input_points": [[[9, 9]]]}]},
    "/sam/segment_image": lambda image: {
        "image": {"type": "base64", "value": image},
        "point_coords": [[9, 9]],
        "point_labels": [1],
    },
}


def picture(width: int, seed: int = 0) -> str:
    """Return an image of a given width as base64 text."""
    return pictures.to_text(pictures.to_bytes(Image.fromarray(pictures.clutter(60, width, seed))))


def serve_faulty(model: Path, folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    """Run an endpoint with the faults of `faulty.py`. Yields its URL and its log."""
    program = ("-m", "tests.scoring.online.faulty")
    with serve_endpoint(folder / "log", "--model", model, *options, program=program) as url:
        yield url, folder / "log"


@pytest.fixture(scope="module")
def roomy(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a faulty endpoint, and return its URL and its log."""
    yield from serve_faulty(packaged, tmp_path_factory.mktemp("roomy"))


@pytest.fixture(scope="module")
def narrow(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run a faulty endpoint with three slots that encodes one image at a time. Returns its URL and its log."""
    options = ["--in-flight", "3", "--batch-images", "1", "--body-seconds", "3", "--fetch-seconds", "1"]
    yield from serve_faulty(packaged, tmp_path_factory.mktemp("narrow"), *options, "--hosts", "127.0.0.1")


def send_request(url: str, body: Any, path: str = "/score", *head: str, length: int | None = None) -> socket.socket:
    """Send a request without reading the response.

    Args:
        url: URL of the endpoint.
        body: content, as bytes or as a value that is sent as JSON.
        path: path of the request.
        *head: additional lines of the head.
        length: Content-Length, if it is not that of the body.

    Returns:
        The connection.
    """
    host, port = url.removeprefix("http://").split(":")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {length or len(content)}", *head]
    connection = socket.create_connection((host, int(port)))
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
    return connection


def logged_requests(log: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of requests in a log, by request id."""
    lines = [json.loads(line[line.index("{") :]) for line in log.read_text().splitlines() if '"request_id"' in line]
    return {line["request_id"]: line for line in lines}


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait at most 30 seconds until a condition is true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true within 30 seconds"
        time.sleep(0.05)


def test_a_shortage_of_memory_affects_only_the_image_that_is_too_large(roomy: tuple[str, Path]) -> None:
    url, _ = roomy
    with ThreadPoolExecutor(12) as pool:
        widths = [50, 77, 51, 52, 77, 53, 54, 55, 77, 56, 57, 58]
        answers = list(pool.map(lambda width: score_click(url, picture(width, seed=width)), widths))
    assert [answer.status_code for answer in answers] == [503 if width == 77 else 200 for width in widths]
    for path, body in BODIES.items():
        refused = requests.post(url + path, json=body(picture(77)), timeout=60)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1", path
        assert "not enough memory" in refused.text and "GiB" not in refused.text and "Traceback" not in refused.text
    assert score_click(url, picture(59)).status_code == 200


def test_only_the_log_reveals_the_type_and_place_of_a_defect(roomy: tuple[str, Path]) -> None:
    """The log omits the text of errors of other libraries, because it may repeat data of the request."""
    url, log = roomy
    for path, body in BODIES.items():
        failed = requests.post(url + path, json=body(picture(78)), timeout=60)
        assert failed.status_code == 500, path
        assert "the server's log has the details" in failed.text
        assert "secret" not in failed.text and "Traceback" not in failed.text and ".py" not in failed.text
    assert score_click(url, picture(80)).status_code == 200
    wait_until(lambda: log.read_text().count("builtins.KeyError: (text withheld") == len(BODIES))
    assert log.read_text().count("faulty.py") >= len(BODIES) and "secret" not in log.read_text().replace(
        '("secret")', ""
    )


def test_the_log_omits_the_text_of_messages_of_libraries(roomy: tuple[str, Path]) -> None:
    url, log = roomy
    before = len(log.read_text())
    failed = requests.post(f"{url}/score", json=BODIES["/score"](picture(79)), timeout=60)
    assert failed.status_code == 500 and "secret" not in failed.text
    wait_until(lambda: "RuntimeError: (text withheld" in log.read_text()[before:])
    written = log.read_text()[before:]
    assert "secret" not in written.replace('reveal("secret")', "").replace("(secret)", "").replace("(secret, [", "")
    for place in (
        f"UserWarning: text withheld, because it may hold data of a request ({ROOT}/tests/scoring/online/faulty.py",
        "mlflow.models.utils: text withheld",
        "a.library.with.a.handler: text withheld, because it may hold data of a request (faulty.py, line",
        "builtins.ValueError: (text withheld",
        "builtins.ExceptionGroup: (text withheld",
        "builtins.LookupError: (text withheld",
        "builtins.KeyError: (text withheld",
    ):
        assert place in written, written


def test_a_request_in_the_queue_is_removed_when_its_client_disconnects(narrow: tuple[str, Path]) -> None:
    """One of three requests is encoded for two seconds. Of the two that wait, one disconnects."""
    url, log = narrow
    widths = (61, 62, 63)
    connections = []
    for width in widths:
        connections.append(
            send_request(url, BODIES["/score"](picture(width)), "/score", f"X-Request-Id: hangs-up-{width}")
        )
        wait_until(lambda: in_flight(url) == len(connections) and "encoding width 61" in log.read_text())
    assert score_click(url, picture(64)).status_code == 503
    connections[1].close()
    wait_until(lambda: in_flight(url) < 3)
    for connection in (connections[0], connections[2]):
        assert b"200 OK" in connection.recv(100)  # the other client's disconnect has no effect
        connection.close()
    wait_until(lambda: in_flight(url) == 0)
    assert score_click(url, picture(65)).status_code == 200
    statuses = [logged_requests(log)[f"hangs-up-{width}"]["status"] for width in widths]
    assert statuses == [200, 499, 200]
    encoded = [line for line in log.read_text().splitlines() if line.startswith("encoding width")]
    assert encoded == [f"encoding width {width}" for width in (61, 63, 65)]


def test_an_image_is_encoded_for_the_other_client_that_waits_for_it(narrow: tuple[str, Path]) -> None:
    """Two clients send the same new image. The client that would trigger its encoding disconnects."""
    url, log = narrow
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(score_click, url, picture(66))
        wait_until(lambda: "encoding width 66" in log.read_text())
        disconnecting = send_request(url, BODIES["/score"](picture(67)))
        wait_until(lambda: in_flight(url) == 2)
        waiting = pool.submit(score_click, url, picture(67))
        wait_until(lambda: in_flight(url) == 3)
        disconnecting.close()
        assert busy.result().status_code == 200 and waiting.result().status_code == 200


@pytest.mark.parametrize("ends", ["drip", "hang up"])
def test_a_body_that_does_not_end_times_out_and_takes_no_slot(narrow: tuple[str, Path], ends: str) -> None:
    url, _ = narrow
    with send_request(url, b'{"input_data": [', length=1000) as connection:
        assert in_flight(url) == 0  # a request whose body is incomplete takes no slot
        if ends == "drip":
            answer = b""
            while b"}" not in answer and (part := connection.recv(4096)):
                answer += part
            assert b" 408 " in answer.partition(b"\r\n")[0] and b"within 3 seconds" in answer
    assert score_click(url, picture(50)).status_code == 200


def test_a_client_that_does_not_read_its_response_frees_its_slot(narrow: tuple[str, Path]) -> None:
    url, _ = narrow
    host, port = url.removeprefix("http://").split(":")
    row = {"image": picture(51), "input_points": [[[5, 5]]] * 60}
    content = json.dumps({"dataframe_records": [row], "params": {"return_logits": True}}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(
            f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        wait_until(lambda: in_flight(url) == 1)
        wait_until(lambda: in_flight(url) == 0)
        assert score_click(url, picture(52)).status_code == 200


def test_fetching_of_images_ends_when_the_client_disconnects(narrow: tuple[str, Path]) -> None:
    """The request has forty URLs that never answer, each with a timeout of one second."""
    url, log = narrow
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        rows = [{"image": f"{address}/{i}", "input_points": [[[5, 5]]]} for i in range(40)]
        body = {"input_data": rows, "params": {"on_error": "record"}}
        connection = send_request(url, body, "/score", "X-Request-Id: has-left")
        wait_until(lambda: in_flight(url) == 1)
        connection.close()
        wait_until(lambda: in_flight(url) == 0)
    line = logged_requests(log)["has-left"]
    assert line["status"] == 499 and line["milliseconds"] < 20_000


@pytest.mark.parametrize("fault", ["a file in its place", "full", "corrupt"])
def test_the_endpoint_works_without_a_store_that_breaks(packaged: Path, tmp_path: Path, fault: str) -> None:
    store = tmp_path / "store"
    if fault == "a file in its place":
        store.write_text("not a folder")
    # Simulates a full disk: the process can only write files of up to 20 kB, enough for the log but not for embeddings.
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code += "sys.argv[0] = 'x'; runpy.run_module('sam_endpoint', run_name='__main__')"
    program = ["-c", code] if fault == "full" else ["-m", "sam_endpoint"]
    for turn in range(2 if fault == "corrupt" else 1):
        log = tmp_path / f"log-{turn}"
        with serve_endpoint(log, "--model", packaged, "--embedding-store", store, program=program) as url:
            for seed in range(3):
                answer = score_click(url, picture(60, seed))
                assert answer.status_code == 200 and answer.json()[0]["predictions"]
            time.sleep(0.5)
        complaints = [line for line in log.read_text().splitlines() if "the embedding store" in line]
        if fault == "corrupt":
            assert len(complaints) == turn
            for file in store.rglob("*.safetensors"):
                file.write_bytes(b"\xff" * 100)
        else:
            assert len(complaints) == 1


def test_rejects_a_wrong_key_before_it_reads_the_body(packaged: Path, tmp_path: Path) -> None:
    options = ["--model", packaged, "--api-keys", "right", "--public-metrics", "true"]
    with serve_endpoint(tmp_path / "log", *options) as url:
        with send_request(url, b"{", "/score", "X-API-Key: no", length=99) as connection:
            assert b" 401 " in connection.recv(4096).partition(b"\r\n")[0]
        assert in_flight(url) == 0
