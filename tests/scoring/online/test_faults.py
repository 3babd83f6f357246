"""Memory that is short, defects, clients that hang up, bodies that never end, a store that breaks: on real servers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.scoring.online.test_gate import in_flight, quick
from tests.warm import python

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
    return pictures.to_text(pictures.to_bytes(Image.fromarray(pictures.clutter(60, width, seed))))


def faulty(model: Path, folder: Path, *options: str) -> Iterator[tuple[str, Path]]:
    port, log = free_port(), folder / "log"
    command = [python(), "-m", "tests.scoring.online.faulty", "--port", str(port), "--model", str(model)]
    with server([*command, *options], port, "/ready", log, PYTHONPATH=str(ROOT)) as url:
        yield url, log


@pytest.fixture(scope="module")
def roomy(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A faulty endpoint, and its log."""
    yield from faulty(packaged, tmp_path_factory.mktemp("roomy"))


@pytest.fixture(scope="module")
def narrow(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A faulty endpoint with room for three requests, which encodes one image at a time, and its log."""
    options = ["--in-flight", "3", "--batch-images", "1", "--body-seconds", "3", "--fetch-seconds", "1"]
    yield from faulty(packaged, tmp_path_factory.mktemp("narrow"), *options, "--hosts", "127.0.0.1")


def asked(url: str, body: Any, path: str = "/score", *head: str, length: int | None = None) -> socket.socket:
    """A connection on which this was asked and nothing has been read."""
    host, port = url.removeprefix("http://").split(":")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {length or len(content)}", *head]
    asking = socket.create_connection((host, int(port)))
    asking.sendall("\r\n".join([*lines, "", ""]).encode() + content)
    return asking


def noted(log: Path) -> dict[str, dict[str, Any]]:
    """The lines of the log that tell of requests, by their id."""
    lines = [json.loads(line[line.index("{") :]) for line in log.read_text().splitlines() if '"request_id"' in line]
    return {line["request_id"]: line for line in lines}


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_where_memory_is_short_others_are_answered(roomy: tuple[str, Path]) -> None:
    url, _ = roomy
    with ThreadPoolExecutor(12) as pool:
        widths = [50, 77, 51, 52, 77, 53, 54, 55, 77, 56, 57, 58]
        answers = list(pool.map(lambda width: quick(url, picture(width, seed=width)), widths))
    assert [one.status_code for one in answers] == [503 if width == 77 else 200 for width in widths]
    for path, body in BODIES.items():
        refused = requests.post(url + path, json=body(picture(77)), timeout=60)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1", path
        assert "not enough memory" in refused.text and "GiB" not in refused.text and "Traceback" not in refused.text
    assert quick(url, picture(59)).status_code == 200


def test_of_a_defect_only_the_log_tells(roomy: tuple[str, Path]) -> None:
    """The log has the type and the place; the text of another library's error may repeat what the request holds."""
    url, log = roomy
    for path, body in BODIES.items():
        failed = requests.post(url + path, json=body(picture(78)), timeout=60)
        assert failed.status_code == 500, path
        assert "the server's log has the details" in failed.text
        assert "secret" not in failed.text and "Traceback" not in failed.text and ".py" not in failed.text
    assert quick(url, picture(80)).status_code == 200
    until(lambda: log.read_text().count("builtins.KeyError: (text withheld") == len(BODIES))
    assert log.read_text().count("faulty.py") >= len(BODIES) and "secret" not in log.read_text().replace(
        '("secret")', ""
    )


def test_what_libraries_tell_is_in_the_log_without_its_text(roomy: tuple[str, Path]) -> None:
    url, log = roomy
    before = len(log.read_text())
    failed = requests.post(f"{url}/score", json=BODIES["/score"](picture(79)), timeout=60)
    assert failed.status_code == 500 and "secret" not in failed.text
    until(lambda: "RuntimeError: (text withheld" in log.read_text()[before:])
    written = log.read_text()[before:]
    assert "secret" not in written.replace('tell("secret")', "").replace("(secret)", "").replace("(secret, [", "")
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


def test_who_hangs_up_frees_its_place(narrow: tuple[str, Path]) -> None:
    """With room for three: one is encoded for two seconds, two wait for it in the queue, of which one hangs up."""
    url, log = narrow
    widths = (61, 62, 63)
    asking = []
    for width in widths:
        asking.append(asked(url, BODIES["/score"](picture(width)), "/score", f"X-Request-Id: hangs-up-{width}"))
        until(lambda: in_flight(url) == len(asking) and "encoding width 61" in log.read_text())
    assert quick(url, picture(64)).status_code == 503
    asking[1].close()
    until(lambda: in_flight(url) < 3)
    for staying in (asking[0], asking[2]):
        assert b"200 OK" in staying.recv(100)  # its neighbour's leaving changes nothing
        staying.close()
    until(lambda: in_flight(url) == 0)
    assert quick(url, picture(65)).status_code == 200
    statuses = [noted(log)[f"hangs-up-{width}"]["status"] for width in widths]
    assert statuses == [200, 499, 200]
    encoded = [line for line in log.read_text().splitlines() if line.startswith("encoding width")]
    assert encoded == [f"encoding width {width}" for width in (61, 63, 65)]


def test_a_shared_image_is_encoded_for_who_stays(narrow: tuple[str, Path]) -> None:
    """Two ask for one new image while a third is encoded; the one that would have it encoded hangs up."""
    url, log = narrow
    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(quick, url, picture(66))
        until(lambda: "encoding width 66" in log.read_text())
        leaving = asked(url, BODIES["/score"](picture(67)))
        until(lambda: in_flight(url) == 2)
        staying = pool.submit(quick, url, picture(67))
        until(lambda: in_flight(url) == 3)
        leaving.close()
        assert busy.result().status_code == 200 and staying.result().status_code == 200


@pytest.mark.parametrize("ends", ["drip", "hang up"])
def test_a_body_that_never_ends(narrow: tuple[str, Path], ends: str) -> None:
    url, _ = narrow
    with asked(url, b'{"input_data": [', length=1000) as asking:
        assert in_flight(url) == 0  # a body on its way takes no place
        if ends == "drip":
            answer = b""
            while b"}" not in answer and (part := asking.recv(4096)):
                answer += part
            assert b" 408 " in answer.partition(b"\r\n")[0] and b"within 3 seconds" in answer
    assert quick(url, picture(50)).status_code == 200


def test_who_does_not_read_its_answer_frees_its_place(narrow: tuple[str, Path]) -> None:
    url, _ = narrow
    host, port = url.removeprefix("http://").split(":")
    row = {"image": picture(51), "input_points": [[[5, 5]]] * 60}
    content = json.dumps({"dataframe_records": [row], "params": {"return_logits": True}}).encode()
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asking.connect((host, int(port)))
        asking.sendall(
            f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        until(lambda: in_flight(url) == 1)
        until(lambda: in_flight(url) == 0)
        assert quick(url, picture(52)).status_code == 200


def test_fetching_for_who_has_left_ends(narrow: tuple[str, Path]) -> None:
    """Twenty addresses that never answer, a second each: who hangs up does not keep its place for them."""
    url, log = narrow
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        rows = [{"image": f"{place}/{i}", "input_points": [[[5, 5]]]} for i in range(40)]
        body = {"input_data": rows, "params": {"on_error": "record"}}
        asking = asked(url, body, "/score", "X-Request-Id: has-left")
        until(lambda: in_flight(url) == 1)
        asking.close()
        until(lambda: in_flight(url) == 0)
    line = noted(log)["has-left"]
    assert line["status"] == 499 and line["milliseconds"] < 20_000


@pytest.mark.parametrize("fault", ["a file in its place", "full", "corrupt"])
def test_a_store_that_breaks_is_done_without(packaged: Path, tmp_path: Path, fault: str) -> None:
    store = tmp_path / "store"
    if fault == "a file in its place":
        store.write_text("not a folder")
    # Files of at most 20 kB, which the log needs and an embedding exceeds: a full disk, as the process sees it.
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code += "sys.argv[0] = 'x'; runpy.run_module('sam_endpoint', run_name='__main__')"
    start = ["-c", code] if fault == "full" else ["-m", "sam_endpoint"]
    for turn in range(2 if fault == "corrupt" else 1):
        port = free_port()
        command = [
            python(),
            *start,
            "serve",
            "--port",
            str(port),
            "--model",
            str(packaged),
            "--embedding-store",
            str(store),
        ]
        log = tmp_path / f"log-{turn}"
        with server(command, port, "/ready", log, PYTHONPATH=str(ROOT)) as url:
            for seed in range(3):
                answer = quick(url, picture(60, seed))
                assert answer.status_code == 200 and answer.json()[0]["predictions"]
            time.sleep(0.5)
        complaints = [line for line in log.read_text().splitlines() if "the embedding store" in line]
        if fault == "corrupt":
            assert len(complaints) == turn
            for file in store.rglob("*.safetensors"):
                file.write_bytes(b"\xff" * 100)
        else:
            assert len(complaints) == 1


def test_a_wrong_key_is_refused_before_its_body(packaged: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    command += ["--api-keys", "right", "--public-metrics", "true"]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)) as url:
        with asked(url, b"{", "/score", "X-API-Key: no", length=99) as asking:
            assert b" 401 " in asking.recv(4096).partition(b"\r\n")[0]
        assert in_flight(url) == 0
