"""Attack a real endpoint, and print the effects of each attack: `python -m tests.reliability.attack --seconds 20`.

During each attack, a client with another key sends clicks. The table has these columns:

- memory: the largest growth of the endpoint's memory during the attack;
- /health: the time of the slowest response of `/health`;
- alone, busy, click: the 95th percentile of the time of a click: without the attack; while the attackers send to
  another port, which answers without work; and during the attack;
- refused: the number of clicks with a status other than 200;
- recovery: the time from the end of the attack until a click was quick again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from benchmarks import memory
from tests import pictures
from tests.conftest import ROOT, free_port
from tests.reliability.attacks import ATTACKS, KEY, Target
from tests.reliability.overload import percentile
from tests.reliability.sink import sink

GOOD_KEY = "good"
MEMORY = 2**30
OPTIONS = (
    *("--memory", str(MEMORY), "--embedding-bytes", "100000000"),
    *("--body-seconds", "5", "--header-seconds", "3", "--track-session-seconds", "5"),
)
MAX_HEALTH = 0.25  # maximum time of a response of `/health`, in seconds
MAX_RECOVERY = 5.0  # maximum recovery time, in seconds
TIMES = 3  # a click during an attack may take at most this many times as long as a click without the attack


@dataclass(frozen=True)
class Report:
    """The effects of an attack.

    Attributes:
        name: name of the attack.
        peak: largest growth of the endpoint's memory during the attack, in bytes.
        health: time of the slowest response of `/health`, in seconds.
        alone: 95th percentile of the time of a click without the attack, in seconds.
        busy: the same while the attackers send to another port, or 0 if that was not measured.
        click: 95th percentile of the time of a click during the attack, in seconds.
        clicks: number of clicks during the attack.
        refused: number of clicks with a status other than 200.
        recovery: seconds from the end of the attack until a click took at most twice `alone`.
    """

    name: str
    peak: int
    health: float
    alone: float
    busy: float
    click: float
    clicks: int
    refused: int
    recovery: float

    def faults(self) -> list[str]:
        """Return the names of the measurements that exceed their limits."""
        limits = {
            "memory": self.peak > MEMORY,
            "/health": self.health > MAX_HEALTH,
            "click": self.click > TIMES * self.alone,
            "refused": self.refused > 0,
            "recovery": self.recovery > MAX_RECOVERY,
        }
        return [name for name, exceeded in limits.items() if exceeded]

    def line(self) -> str:
        """Return a row of the table."""
        times = " ".join(f"{1000 * taken:6.0f} ms" for taken in (self.health, self.alone, self.busy, self.click))
        return (
            f"{self.name:24} {self.peak / 2**20:6.0f} MB {times} {self.refused:4d}/{self.clicks:<4d} "
            f"{self.recovery:6.1f} s  {', '.join(self.faults())}"
        )


COLUMNS = ("memory", "/health", "alone", "busy", "click", "refused", "recovery")
HEADER = " ".join([f"{'attack':24}", *(f"{name:>9}" for name in COLUMNS)])


class Client:
    """A well-behaved client that clicks on one image."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, requests.Session()
        image = pictures.to_text(pictures.disc()[0])
        row = {"image": image, "input_points": [[[110, 80]]], "multimask_output": False}
        self.body = json.dumps({"input_data": [row], "params": {"mask_encoding": "rle"}}).encode()

    def click(self) -> tuple[float, bool]:
        """Click once. Return the seconds until the response, and whether the status was 200."""
        headers = {"x-api-key": GOOD_KEY, "content-type": "application/json"}
        started = time.monotonic()
        try:
            answer = self.session.post(f"{self.url}/score", data=self.body, headers=headers, timeout=30)
            return time.monotonic() - started, answer.status_code == 200
        except requests.RequestException:
            return time.monotonic() - started, False

    def clicks(self, seconds: float) -> list[tuple[float, bool]]:
        """Click again and again for some seconds. Return the results of `click`."""
        answers, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            answers.append(self.click())
            time.sleep(0.05)
        return answers

    def slowest_health(self, over: threading.Event) -> float:
        """Request `/health` until an event is set. Return the time of the slowest response in seconds."""
        slowest, session = 0.0, requests.Session()
        while not over.is_set():
            started = time.monotonic()
            with contextlib.suppress(requests.RequestException):
                session.get(f"{self.url}/health", timeout=30)
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.02)
        return slowest


def run(
    attack: Callable[[Target], None], url: str, process: int, seconds: float, other_url: str | None = None
) -> Report:
    """Run one attack in a separate process, and measure the endpoint during the attack.

    Args:
        attack: the attack.
        url: URL of the endpoint.
        process: process id of the endpoint.
        seconds: duration of the attack.
        other_url: URL of a port to which the attackers first send the same requests (see `sink`), or None.
    """
    client = Client(url)
    client.clicks(0.5)
    alone = percentile([taken for taken, _ in client.clicks(max(2.0, seconds / 5))])
    busy = 0.0
    if other_url:
        with attacking(attack, other_url, seconds):
            busy = percentile([taken for taken, _ in client.clicks(seconds)])
    memory.reset_peak(process)
    before = memory.resident(process)
    over, healths = threading.Event(), []
    watching = threading.Thread(target=lambda: healths.append(Client(url).slowest_health(over)))
    with attacking(attack, url, seconds):
        watching.start()
        answers = client.clicks(seconds)
    ended = time.monotonic()
    while client.click()[0] > 2 * alone and time.monotonic() < ended + 60:
        time.sleep(0.05)
    recovery = time.monotonic() - ended
    over.set()
    watching.join()
    peak = memory.peak(process) - before
    refused = sum(not good for _, good in answers)
    clicks = percentile([taken for taken, _ in answers])
    return Report(attack.__name__, peak, healths[0], alone, busy, clicks, len(answers), refused, recovery)


@contextlib.contextmanager
def attacking(attack: Callable[[Target], None], url: str, seconds: float) -> Iterator[None]:
    """Run an attack in another process during the block, and wait until the process ends."""
    target = Target(url, time.monotonic() + seconds)
    process = multiprocessing.get_context("fork").Process(target=yielding, args=(attack, target), daemon=True)
    process.start()
    yield
    process.join(10)
    if process.is_alive():
        process.kill()


def yielding(attack: Callable[[Target], None], target: Target) -> None:
    """Run an attack with the lowest priority, because real attackers do not use the endpoint's processors."""
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    attack(target)


@contextlib.contextmanager
def endpoint(log: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Run the endpoint with two keys until the block ends. Yield its URL and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "sam_endpoint", "serve", "--port", str(port), *OPTIONS, *options]
    environment = {**os.environ, "SAM_API_KEYS": f"{KEY},{GOOD_KEY}", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as stream:
        server = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert server.poll() is None, log.read_text()[-2000:]
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{url}/ready", timeout=5).status_code == 200:
                    break
            time.sleep(0.2)
        yield url, server.pid
    finally:
        server.kill()
        server.wait()


def run_all(attacks: Sequence[Callable[[Target], None]], seconds: float) -> list[Report]:
    """Run attacks one after the other on one endpoint, and print a row for each attack."""
    reports = []
    with tempfile.TemporaryDirectory() as folder, endpoint(Path(folder) / "log") as (url, process), sink() as other:
        print(HEADER, flush=True)
        for attack in attacks:
            reports.append(run(attack, url, process, seconds, other))
            print(reports[-1].line(), flush=True)
    return reports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", nargs="*", help="names of attacks")
    chosen = parser.parse_args()
    attacks = [attack for attack in ATTACKS if not chosen.only or attack.__name__ in chosen.only]
    return 1 if any(report.faults() for report in run_all(attacks, chosen.seconds)) else 0


if __name__ == "__main__":
    sys.exit(main())
