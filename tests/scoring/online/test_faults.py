"""Memory that is short, defects, clients that hang up, bodies that never end, a store that breaks: on real servers."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.scoring.online.test_gate import in_flight, quick

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


@contextmanager
def faulty(fault: str, model: Path, folder: Path, *options: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tests.scoring.online.faulty", fault, "--port", str(port), "--model", str(model)]
    with server([*command, *options], port, "/ready", folder / "log", PYTHONPATH=str(ROOT)) as url:
        yield url


def noted(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log that tell of requests."""
    lines = (folder / "log").read_text().splitlines()
    return [json.loads(line[line.index("{") :]) for line in lines if '"request_id"' in line]


def until(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def test_where_memory_is_short_others_are_answered(packaged: Path, tmp_path: Path) -> None:
    with faulty("memory", packaged, tmp_path) as url, ThreadPoolExecutor(12) as pool:
        widths = [50, 77, 51, 52, 77, 53, 54, 55, 77, 56, 57, 58]
        answers = list(pool.map(lambda width: quick(url, picture(width, seed=width)), widths))
        assert [one.status_code for one in answers] == [503 if width == 77 else 200 for width in widths]
        for path, body in BODIES.items():
            refused = requests.post(url + path, json=body(picture(77)), timeout=60)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1", path
            assert "not enough memory" in refused.text and "GiB" not in refused.text and "Traceback" not in refused.text
        assert quick(url, picture(60)).status_code == 200


def test_of_a_defect_only_the_log_tells(packaged: Path, tmp_path: Path) -> None:
    with faulty("defect", packaged, tmp_path) as url:
        for path, body in BODIES.items():
            failed = requests.post(url + path, json=body(picture(77)), timeout=60)
            assert failed.status_code == 500, path
            assert "the server's log says why" in failed.text
            assert "secret" not in failed.text and "Traceback" not in failed.text and ".py" not in failed.text
        assert quick(url, picture(60)).status_code == 200
    assert (tmp_path / "log").read_text().count("KeyError: 'secret'") == len(BODIES)


def test_who_hangs_up_frees_its_place(packaged: Path, tmp_path: Path) -> None:
    """With room for two: one encodes for a second, the second waits for it in the queue and hangs up."""
    with faulty("slow", packaged, tmp_path, "--in-flight", "2", "--batch-images", "1") as url:
        host, port = url.removeprefix("http://").split(":")

        def ask(seed: int) -> socket.socket:
            content = json.dumps(BODIES["/score"](picture(60 + seed))).encode()
            asking = socket.create_connection((host, int(port)))
            head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nX-Request-Id: {seed}\r\n"
            asking.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            return asking

        first = ask(1)
        until(lambda: in_flight(url) == 1)
        second = ask(2)
        until(lambda: in_flight(url) == 2)
        assert quick(url, picture(63)).status_code == 503
        second.close()
        until(lambda: in_flight(url) == 1)
        assert b"200 OK" in first.recv(100)  # the first is answered, its neighbour's leaving changes nothing
        first.close()
        until(lambda: in_flight(url) == 0)
        assert quick(url, picture(64)).status_code == 200
    statuses = {line["request_id"]: line["status"] for line in noted(tmp_path)}
    assert statuses["1"] == 200 and statuses["2"] == 499
    encoded = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("encoding widths")]
    assert encoded == ["encoding widths [61]", "encoding widths [64]"]


def test_a_shared_image_is_encoded_for_who_stays(packaged: Path, tmp_path: Path) -> None:
    """Two ask for one new image while a third is encoded; the one that would have it encoded hangs up."""
    with faulty("slow", packaged, tmp_path, "--batch-images", "1") as url, ThreadPoolExecutor(2) as pool:
        busy = pool.submit(quick, url, picture(50))
        until(lambda: in_flight(url) == 1)
        host, port = url.removeprefix("http://").split(":")
        content = json.dumps(BODIES["/score"](picture(60))).encode()
        leaving = socket.create_connection((host, int(port)))
        leaving.sendall(
            f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
        )
        until(lambda: in_flight(url) == 2)
        staying = pool.submit(quick, url, picture(60))
        until(lambda: in_flight(url) == 3)
        leaving.close()
        assert busy.result().status_code == 200 and staying.result().status_code == 200


@pytest.mark.parametrize("ends", ["drip", "hang up"])
def test_a_body_that_never_ends(packaged: Path, tmp_path: Path, ends: str) -> None:
    with faulty("none", packaged, tmp_path, "--in-flight", "1", "--body-seconds", "5") as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as asking:
            asking.sendall(f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n".encode())
            asking.sendall(b'{"input_data": [')
            until(lambda: in_flight(url) == 1)
            if ends == "drip":
                answer = b""
                while b"}" not in answer and (part := asking.recv(4096)):
                    answer += part
                assert b" 408 " in answer.partition(b"\r\n")[0] and b"within 5 seconds" in answer
        until(lambda: in_flight(url) == 0)
        assert quick(url, picture(60)).status_code == 200


@pytest.mark.parametrize("fault", ["a file in its place", "full", "corrupt"])
def test_a_store_that_breaks_is_done_without(packaged: Path, tmp_path: Path, fault: str) -> None:
    store = tmp_path / "store"
    if fault == "a file in its place":
        store.write_text("not a folder")
    # Files of at most 20 kB, which the log needs and an embedding exceeds: a full disk, as the process sees it.
    code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code += "sys.argv[0] = 'x'; runpy.run_module('scoring.online', run_name='__main__')"
    start = ["-c", code] if fault == "full" else ["-m", "scoring.online"]
    for turn in range(2 if fault == "corrupt" else 1):
        port = free_port()
        command = [
            sys.executable,
            *start,
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
        complaints = [line for line in log.read_text().splitlines() if "the store of embeddings cannot be" in line]
        if fault == "corrupt":
            assert len(complaints) == turn
            for file in store.rglob("*.safetensors"):
                file.write_bytes(b"\xff" * 100)
        else:
            assert len(complaints) == 1


def test_who_does_not_read_its_answer_frees_its_place(packaged: Path, tmp_path: Path) -> None:
    with faulty("none", packaged, tmp_path, "--in-flight", "1", "--body-seconds", "2") as url:
        host, port = url.removeprefix("http://").split(":")
        row = {"image": picture(60), "input_points": [[[5, 5]]] * 60}
        content = json.dumps({"dataframe_records": [row], "params": {"return_logits": True}}).encode()
        with socket.socket() as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            asking.connect((host, int(port)))
            asking.sendall(
                f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            until(lambda: in_flight(url) == 1)
            until(lambda: in_flight(url) == 0)
            assert quick(url, picture(60)).status_code == 200


def test_a_wrong_key_is_refused_before_its_body(packaged: Path, tmp_path: Path) -> None:
    with faulty("none", packaged, tmp_path, "--in-flight", "1", "--api-keys", "right") as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as asking:
            asking.sendall(
                f"POST /score HTTP/1.1\r\nHost: {host}\r\nX-API-Key: no\r\nContent-Length: 99\r\n\r\n{{".encode()
            )
            assert b" 401 " in asking.recv(4096).partition(b"\r\n")[0]
            assert in_flight(url) == 0


def test_fetching_for_who_has_left_ends(packaged: Path, tmp_path: Path) -> None:
    """Twenty addresses that never answer, a second each: who hangs up does not keep its place for them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = ("--in-flight", "1", "--fetch-seconds", "1", "--hosts", "127.0.0.1")
        with faulty("none", packaged, tmp_path, *options) as url:
            host, port = url.removeprefix("http://").split(":")
            place = f"http://127.0.0.1:{silent.getsockname()[1]}"
            rows = [{"image": f"{place}/{i}", "input_points": [[[5, 5]]]} for i in range(40)]
            content = json.dumps({"input_data": rows, "params": {"on_error": "record"}}).encode()
            asking = socket.create_connection((host, int(port)))
            asking.sendall(
                f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
            )
            until(lambda: in_flight(url) == 1)
            asking.close()
            until(lambda: in_flight(url) == 0)
            assert noted(tmp_path)[-1]["status"] == 499 and noted(tmp_path)[-1]["milliseconds"] < 20_000
