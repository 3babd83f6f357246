"""Overload and shutdown of the endpoint: rejected requests, and requests that are in flight at SIGTERM."""

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
from tests.conftest import ROOT, Json, free_port, serve_endpoint
from tests.scoring.online.endpoint import in_flight, score_click
from tests.warm import python


def score_everything(url: str, image: str) -> Any:
    """Segment everything in an image with many points, which takes some seconds, and return the response."""
    body: dict[str, Json] = {
        "input_data": [{"image": image}],
        "params": {"points_per_side": 24, "mask_encoding": "rle"},
    }
    return requests.post(f"{url}/score", json=body, timeout=120)


def start_request(pool: ThreadPoolExecutor, url: str, image: str) -> Future[Any]:
    """Start a long request in a thread, and wait until it is in flight."""
    before, future = in_flight(url), pool.submit(score_everything, url, image)
    while in_flight(url) <= before:
        assert not future.done(), "the request ended before it was in flight"
        time.sleep(0.02)
    return future


def test_rejects_a_request_at_once_if_the_limit_of_requests_is_in_flight(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    image = pictures.to_text(disc[0])
    with serve_endpoint(tmp_path / "log", "--model", packaged, "--in-flight", 2) as url:
        with ThreadPoolExecutor(2) as pool:
            running = [start_request(pool, url, image) for _ in range(2)]
            refused = score_click(url, image)
            assert not any(future.done() for future in running)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert "too many requests" in refused.json()["error"]["message"]
            assert requests.get(f"{url}/ping", timeout=10).status_code == 200  # health checks still succeed
            assert [future.result().status_code for future in running] == [200, 200]
        assert score_click(url, image).status_code == 200


def test_sigterm_finishes_requests_in_flight_and_rejects_new_ones(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
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
            running = start_request(pool, url, image)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert not running.done()
            try:
                late = score_click(url, image).status_code
            except requests.ConnectionError:
                late = 503
            assert late == 503
            answer = running.result()
        assert answer.status_code == 200 and isinstance(answer.json()[0]["predictions"], list)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
