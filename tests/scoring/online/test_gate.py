"""Overload and shutdown, on a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests

from tests import pictures
from tests.conftest import ROOT, Json, free_port, server
from tests.warm import python


def slow(url: str, image: str) -> Any:
    """Some seconds of work: everything in an image, asked very densely."""
    body: dict[str, Json] = {
        "input_data": [{"image": image}],
        "params": {"points_per_side": 24, "mask_encoding": "rle"},
    }
    return requests.post(f"{url}/score", json=body, timeout=120)


def quick(url: str, image: str) -> Any:
    body: dict[str, Json] = {"input_data": [{"image": image, "input_points": [[[9, 9]]]}]}
    return requests.post(f"{url}/score", json=body, timeout=60)


def in_flight(url: str) -> float:
    lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
    return float(next(line for line in lines if line.startswith("sam_requests_in_flight ")).split()[1])


def started(pool: ThreadPoolExecutor, url: str, image: str) -> Future[Any]:
    before, future = in_flight(url), pool.submit(slow, url, image)
    while in_flight(url) <= before:
        assert not future.done(), "over before it was seen"
        time.sleep(0.02)
    return future


def test_when_full_the_next_is_refused_at_once(packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    port, image = free_port(), pictures.to_text(disc[0])
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    with server([*command, "--in-flight", "2"], port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)) as url:
        with ThreadPoolExecutor(2) as pool:
            running = [started(pool, url, image) for _ in range(2)]
            refused = quick(url, image)
            assert not any(future.done() for future in running)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert "too many requests" in refused.json()["error"]["message"]
            assert requests.get(f"{url}/ping", timeout=10).status_code == 200  # still alive for who asks
            assert [future.result().status_code for future in running] == [200, 200]
        assert quick(url, image).status_code == 200


def test_sigterm_finishes_what_is_in_flight(packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    port, image = free_port(), pictures.to_text(disc[0])
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                requests.get(f"{url}/ready", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
        with ThreadPoolExecutor(1) as pool:
            running = started(pool, url, image)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert not running.done()
            try:
                late = quick(url, image).status_code
            except requests.ConnectionError:
                late = 503
            assert late == 503
            answer = running.result()
        assert answer.status_code == 200 and isinstance(answer.json()[0]["predictions"], list)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
