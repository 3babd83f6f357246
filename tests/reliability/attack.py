"""Attack a real endpoint, and print what each attack did to it: `python -m tests.reliability.attack --seconds 20`.

The columns: by how much the process's memory grew at most; the slowest answer of `/health`; the 95th percentile of a
click by another key, alone and meanwhile; its answers that were not 200; the seconds until a click was quick again.
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

from tests import pictures
from tests.conftest import ROOT, free_port
from tests.reliability.attacks import ATTACKS, KEY, Target
from tests.reliability.overload import percentile

GOOD_KEY = "good"
MEMORY = 2**30
OPTIONS = ("--memory", str(MEMORY), "--embedding-bytes", "100000000", "--body-seconds", "5", "--header-seconds", "3")
MAX_HEALTH = 0.25  # seconds
MAX_RECOVERY = 5.0
TIMES = 3  # a click may take so many times what it takes alone


@dataclass(frozen=True)
class Report:
    """What an attack did.

    Attributes:
        name: the attack.
        peak: bytes of memory that the process grew by at most.
        health: seconds of the slowest answer of `/health`.
        alone: seconds of a click without the attack, 95th percentile.
        click: seconds of a click beside it.
        clicks: number of clicks.
        refused: number of clicks with another status than 200.
        recovery: seconds from the end until a click took less than twice `alone`.
    """

    name: str
    peak: int
    health: float
    alone: float
    click: float
    clicks: int
    refused: int
    recovery: float

    def faults(self) -> list[str]:
        """Return what is beyond the limits."""
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
        return (
            f"{self.name:24} {self.peak / 2**20:6.0f} MB {1000 * self.health:6.0f} ms {1000 * self.alone:6.0f} ms "
            f"{1000 * self.click:6.0f} ms {self.refused:4d}/{self.clicks:<4d} {self.recovery:5.1f} s  "
            f"{', '.join(self.faults())}"
        )


HEADER = f"{'attack':24} {'memory':>9} {'/health':>9} {'alone':>9} {'click':>9} {'refused':>9} {'recovery':>8}"


class Client:
    """A well-behaved client that clicks on one image."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, requests.Session()
        image = pictures.to_text(pictures.disc()[0])
        row = {"image": image, "input_points": [[[110, 80]]], "multimask_output": False}
        self.body = json.dumps({"input_data": [row], "params": {"mask_encoding": "rle"}}).encode()

    def click(self) -> tuple[float, bool]:
        """Click once; return the seconds it took and whether the answer was 200."""
        headers = {"x-api-key": GOOD_KEY, "content-type": "application/json"}
        started = time.monotonic()
        try:
            answer = self.session.post(f"{self.url}/score", data=self.body, headers=headers, timeout=30)
            return time.monotonic() - started, answer.status_code == 200
        except requests.RequestException:
            return time.monotonic() - started, False

    def clicks(self, seconds: float) -> list[tuple[float, bool]]:
        """Click for a while."""
        answers, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            answers.append(self.click())
            time.sleep(0.05)
        return answers

    def slowest_health(self, over: threading.Event) -> float:
        """Ask `/health` until an event is set; return the seconds of the slowest answer."""
        slowest, session = 0.0, requests.Session()
        while not over.is_set():
            started = time.monotonic()
            with contextlib.suppress(requests.RequestException):
                session.get(f"{self.url}/health", timeout=30)
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.02)
        return slowest


def run(attack: Callable[[Target], None], url: str, process: int, seconds: float) -> Report:
    """Run one attack against a server process, in a process of its own, and measure meanwhile."""
    client = Client(url)
    client.clicks(0.5)
    alone = percentile([taken for taken, _ in client.clicks(max(2.0, seconds / 5))])
    Path(f"/proc/{process}/clear_refs").write_text("5")  # the peak is counted from here on
    before = status(process, "VmRSS")
    target = Target(url, time.monotonic() + seconds)
    attacking = multiprocessing.get_context("fork").Process(target=yielding, args=(attack, target), daemon=True)
    attacking.start()
    over, healths = threading.Event(), []
    watching = threading.Thread(target=lambda: healths.append(Client(url).slowest_health(over)))
    watching.start()
    answers = client.clicks(seconds)
    attacking.join(10)
    if attacking.is_alive():
        attacking.kill()
    ended = time.monotonic()
    while client.click()[0] > 2 * alone and time.monotonic() < ended + 60:
        time.sleep(0.05)
    recovery = time.monotonic() - ended
    over.set()
    watching.join()
    peak = status(process, "VmHWM") - before
    refused = sum(not good for _, good in answers)
    clicks = percentile([taken for taken, _ in answers])
    return Report(attack.__name__, peak, healths[0], alone, clicks, len(answers), refused, recovery)


def yielding(attack: Callable[[Target], None], target: Target) -> None:
    """Run an attack at the lowest priority: real attackers use processors of their own, not the endpoint's."""
    os.nice(19)
    attack(target)


def status(process: int, name: str) -> int:
    """Return a number of bytes of a process's status."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


@contextlib.contextmanager
def endpoint(log: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Start the endpoint with two keys; yield its URL and its process id."""
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
    """Run attacks one after the other against one server, and print a row for each."""
    reports = []
    with tempfile.TemporaryDirectory() as folder, endpoint(Path(folder) / "log") as (url, process):
        print(HEADER, flush=True)
        for attack in attacks:
            reports.append(run(attack, url, process, seconds))
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
