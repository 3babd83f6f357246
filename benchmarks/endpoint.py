"""Benchmark cases of the endpoint over HTTP, compared with the simplest server that a user would write."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.limits import lower_bound
from benchmarks.measure import DEFAULT_ATTENTION, OURS, Cases, Result, Ways, measure_alternately
from benchmarks.subjects import SIZE

PLAIN = f"plain server, {DEFAULT_ATTENTION} (default)"
PLAIN_EAGER = "plain server, eager"
CLIENTS = 16
CACHED = "cached"  # the image_id of the cached image


@contextlib.contextmanager
def running_server(command: list[str], path: str) -> Iterator[str]:
    """Run a server as `server_process` does, and yield only its URL."""
    with server_process(command, path) as (url, _):
        yield url


@contextlib.contextmanager
def server_process(
    command: list[str], path: str, environment: Mapping[str, str] = MappingProxyType({}), core: int | None = None
) -> Iterator[tuple[str, int]]:
    """Run a server while the block runs, and yield its URL and process id once it is ready.

    Args:
        command: The arguments of Python; `PORT` is replaced with a free port.
        path: The path that responds once the server is ready.
        environment: Variables to add to the environment.
        core: The only processor core that the server uses; None for all cores.

    Raises:
        RuntimeError: The server does not start.
    """
    port = free_port()
    words = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in command)]
    pinned = ["taskset", "--cpu-list", str(core)] if core is not None else []
    process = subprocess.Popen(
        [*pinned, *words],
        cwd=subjects.ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url + path, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(words)} did not start") from None
                time.sleep(0.2)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port on which no process listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


_thread = threading.local()


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    """Post a JSON body and return the JSON response.

    Each thread keeps its connection open, as clients do. The code is as short as possible, because its time is measured
    too.
    """
    if not hasattr(_thread, "connections"):
        _thread.connections = {}
    connection = _thread.connections.setdefault(url, http.client.HTTPConnection(urlsplit(url).netloc, timeout=300))
    request = ("POST", path, json.dumps(body), {"content-type": "application/json"})
    try:
        connection.request(*request)
        response = connection.getresponse()
    except (ConnectionError, http.client.HTTPException):  # servers close idle connections
        connection.close()
        connection.request(*request)
        response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status}: {answer}")
    return answer


def new_image(number: int) -> str:
    """Return a different file for each number, as base64 text.

    The files differ in bytes after the end of the image. A server that knows images by their bytes has to encode each
    of them. Small changes of the pixels would not do: JPEG rounds some of them away.
    """
    return base64.b64encode(_picture_file() + number.to_bytes(8, "big")).decode()


@cache
def _picture_file() -> bytes:
    return subjects.jpeg(subjects.picture(*SIZE))


def endpoint(name: str, turns: int) -> Iterator[Result]:
    """Measure what an annotation tool sends: a new image, then prompts on it from one client and from 16 clients."""
    command = ["sam_endpoint", "serve", "--model", str(packaged(name)), "--port", "PORT"]
    with (
        running_server(["benchmarks.plain_server", name, "PORT"], "/openapi.json") as plain,
        running_server(["benchmarks.plain_server", name, "PORT", "eager"], "/openapi.json") as eager,
        running_server(command, "/ready") as ours,
    ):
        yield from _compare(name, turns, {PLAIN: plain, PLAIN_EAGER: eager}, ours)


def _compare(name: str, turns: int, plains: dict[str, str], ours: str) -> Iterator[Result]:
    """Measure servers: plain ones at URLs by their names, and this project's at the URL `ours`."""
    boxes = itertools.cycle(subjects.boxes(64, *SIZE))
    cached, *new = (new_image(number) for number in range((len(plains) + 1) * (turns + 1) + 1))
    unseen = iter(new)

    def ask_plain(url: str, image: str) -> None:
        post(url, "/score", {"image": image, "box": next(boxes)})

    def ask_ours(**image: str) -> None:
        row = {**image, "input_boxes": [next(boxes)]}
        post(ours, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})

    def ask_cached(number: int = 0) -> None:
        ask_ours(image_id=CACHED)

    ask_ours(image=cached, image_id=CACHED)

    def ask_plain_for_new(url: str) -> None:
        ask_plain(url, next(unseen))

    def ask_plain_three_times(url: str) -> None:
        for _ in range(3):
            ask_plain(url, cached)

    unknown: Ways = {way: partial(ask_plain_for_new, url) for way, url in plains.items()}
    unknown[OURS] = lambda: ask_ours(image=next(unseen))
    times = measure_alternately(unknown, turns)
    yield Result("request with a new image", name, times, floor=lower_bound(name, images=1, prompts=1))
    cached_image: Ways = {way: partial(ask_plain, url, cached) for way, url in plains.items()}
    times = measure_alternately({**cached_image, OURS: ask_cached}, max(turns, 20))
    tails = ", ".join(f"{way} {np.percentile(values, 95) * 1000:,.0f} ms" for way, values in times.items())
    note = f"95th percentile: {tails}"
    yield Result("prompt on a cached image", name, times, floor=lower_bound(name, prompts=1), note=note)
    with ThreadPoolExecutor(CLIENTS) as pool:
        counts = {f"{way}, one by one": 3 for way in plains} | {OURS: 2 * CLIENTS}
        together: Ways = {f"{way}, one by one": partial(ask_plain_three_times, url) for way, url in plains.items()}
        together[OURS] = lambda: list(pool.map(ask_cached, range(2 * CLIENTS)))
        times = measure_alternately(together, turns)
    each = {way: [value / counts[way] for value in values] for way, values in times.items()}
    yield Result(f"{CLIENTS} clients on one image, per request", name, each, floor=lower_bound(name, prompts=1))
    yield _overhead(name, ours, ask_cached, turns)


def _overhead(name: str, url: str, ask: Callable[[], None], turns: int) -> Result:
    """Measure the time of a prompt on a cached image, without the time of the model.

    The server reports the model's time as two stages. In the stage `prompt`, a request waits for the decoder. In the
    stage `mask`, its logits are upscaled to the size of the image.
    """
    seconds = []
    for _ in range(max(turns, 20)):
        before, started = _model_seconds(url), time.perf_counter()
        ask()
        total = time.perf_counter() - started
        seconds.append(total - (_model_seconds(url) - before))
    return Result("server overhead of a prompt", name, {OURS: seconds})


def _model_seconds(url: str) -> float:
    """Return the seconds that the server has spent so far in the stages `prompt` and `mask`."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    stages = tuple(f'sam_stage_seconds_sum{{stage="{stage}"}}' for stage in ("prompt", "mask"))
    return sum(float(line.split()[-1]) for line in lines if line.startswith(stages))


CASES: Cases = {
    "endpoint": (endpoint, ("sam-tiny", "vit-b")),
}
