"""Cases of the endpoint, over HTTP on loopback, beside the plainest server one would write."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.limits import least
from benchmarks.measure import Result, in_turn
from benchmarks.model import OURS, SIZE

PLAIN = "plain server"
CLIENTS = 16


@contextlib.contextmanager
def _server(command: list[str], path: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in command)]
    process = subprocess.Popen(words, cwd=subjects.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url + path, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(words)} did not start") from None
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _post(url: str, path: str, body: dict[str, Any]) -> Any:
    """The answer to a body, over this thread's own connection, which is kept as clients do.

    As small a client as can be, since its time is measured too.
    """
    if not hasattr(_own, "connections"):
        _own.connections = {}
    connection = _own.connections.setdefault(url, http.client.HTTPConnection(urlsplit(url).netloc, timeout=300))
    asked = ("POST", path, json.dumps(body), {"content-type": "application/json"})
    try:
        connection.request(*asked)
        answer = connection.getresponse()
    except (ConnectionError, http.client.HTTPException):  # closed meanwhile, as idle ones are
        connection.close()
        connection.request(*asked)
        answer = connection.getresponse()
    found = json.loads(answer.read())
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}: {found}")
    return found


_own = threading.local()


def _image(number: int) -> str:
    """A picture of its own each time, as base64."""
    image = subjects.picture(*SIZE).copy()
    image[:8, :8] = np.frombuffer(number.to_bytes(4, "big") * 48, np.uint8).reshape(8, 8, 3)
    return base64.b64encode(subjects.jpeg(image)).decode()


def endpoint(names: list[str], turns: int) -> Iterator[Result]:
    """Requests as an annotation tool makes them: a new image, then prompts on it, from one client and from 16."""
    for name in names:
        boxes = itertools.cycle(subjects.boxes(64, *SIZE))
        first, *new = (_image(number) for number in range(2 * turns + 3))
        unseen = iter(new)
        ours_command = ["scoring.online", "--model", str(packaged(name)), "--port", "PORT"]
        with (
            _server(["benchmarks.plain_server", name, "PORT"], "/openapi.json") as plain,
            _server(ours_command, "/ready") as ours,
        ):

            def ask(row: dict[str, Any], url: str = ours) -> Any:
                return _post(url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})[0]

            def ask_plain(image: str, url: str = plain) -> None:
                _post(url, "/score", {"image": image, "box": next(boxes)})  # noqa: B023

            def ask_ours(image: str | None) -> None:
                where = {"image_id": "kept"} if image is None else {"image": image}
                ask({**where, "input_boxes": [next(boxes)]})  # noqa: B023

            ask({"image": first, "image_id": "kept", "input_boxes": [next(boxes)]})
            cold = {PLAIN: lambda: ask_plain(next(unseen)), OURS: lambda: ask_ours(next(unseen))}  # noqa: B023
            times = in_turn(cold, turns)
            yield Result("request with a new image", name, times, floor=least(name, images=1, prompts=1))
            again = in_turn({PLAIN: lambda: ask_plain(first), OURS: lambda: ask_ours(None)}, max(turns, 20))  # noqa: B023
            tails = ", ".join(f"{way} {np.percentile(taken, 95) * 1000:,.0f} ms" for way, taken in again.items())
            floor, note = least(name, prompts=1), f"95th percentile: {tails}"
            yield Result("prompt on a kept image", name, again, floor=floor, note=note)
            with ThreadPoolExecutor(CLIENTS) as pool:
                count = 2 * CLIENTS
                together = {
                    f"{PLAIN}, one by one": lambda: list(map(ask_plain, [first] * 3)),  # noqa: B023
                    OURS: lambda: list(pool.map(ask_ours, [None] * count)),  # noqa: B023
                }
                taken = in_turn(together, turns)
            each = {way: [one / (count if way == OURS else 3) for one in values] for way, values in taken.items()}
            floor = least(name, prompts=1)
            yield Result(f"{CLIENTS} clients on one image, a request", name, each, floor=floor)
            yield _overhead(name, ours, ask_ours, turns)


def _overhead(name: str, url: str, ask: Callable[[None], None], turns: int) -> Result:
    """What a prompt on a kept image takes beyond the model: the request's time less what the server says of its stages
    `prompt`, in which the decoder is waited for, and `mask`, in which its logits become masks of the image's size."""
    spent = []
    for _ in range(max(turns, 20)):
        before, began = _modelling(url), time.perf_counter()
        ask(None)
        taken = time.perf_counter() - began
        spent.append(taken - (_modelling(url) - before))
    return Result("server's own part of a prompt", name, {OURS: spent})


def _modelling(url: str) -> float:
    """Seconds that the server has spent in the decoder and on making masks so far."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    stages = tuple(f'sam_stage_seconds_sum{{stage="{stage}"}}' for stage in ("prompt", "mask"))
    return sum(float(line.split()[-1]) for line in lines if line.startswith(stages))


CASES: dict[str, tuple[Callable[[list[str], int], Iterator[Result]], tuple[str, ...]]] = {
    "endpoint": (endpoint, ("sam-tiny", "vit-b")),
}
