"""Ten times the requests that the endpoint can answer: `python -m tests.reliability.overload --seconds 120`.

First requests one after the other, for the latency without load, then from a few clients, for the capacity; then
requests at ten times that rate, whether or not the earlier ones are answered; then one after the other again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.traffic import Question, endpoint, questions, resident

IN_FLIGHT = 8
TIMES = 10


@dataclass(frozen=True)
class Answer:
    status: int
    seconds: float
    wrong: str | None
    retry_after: bool


@dataclass(frozen=True)
class Report:
    """alone: 95th percentile of the latency without load, in seconds; capacity: requests a second; answers: those under
    overload; recovered: seconds from its end until a request took no longer than twice `alone`; resident: bytes held
    before, in the middle and at the end."""

    alone: float
    capacity: float
    answers: list[Answer]
    recovered: float
    resident: tuple[int, int, int]

    @property
    def accepted(self) -> float:
        """95th percentile of the latency of accepted requests."""
        return percentile([one.seconds for one in self.answers if one.status == 200])

    @property
    def bound(self) -> float:
        """What that may be: twice the latency without load, and the time that a full house takes."""
        return 2 * self.alone + IN_FLIGHT / self.capacity


def percentile(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 95 // 100]


async def ask(host: str, port: int, question: Question) -> Answer:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST {question.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(question.body)}\r\n\r\n".encode() + question.body)
    answer = await reader.read()
    writer.close()
    took = time.monotonic() - began
    head_read, _, body = answer.partition(b"\r\n\r\n")
    status = int(head_read.split()[1])
    wrong = question.wrong(status, body) if status == 200 else None
    return Answer(status, took, wrong, b"retry-after" in head_read.lower())


async def drive(host: str, port: int, process: int, seconds: float, asked: list[Question]) -> Report:
    async def one_by_one(count: int) -> list[float]:
        return [(await ask(host, port, asked[i % len(asked)])).seconds for i in range(count)]

    await one_by_one(10)
    alone = percentile(await one_by_one(int(min(40, 10 + seconds))))

    async def client(number: int) -> int:
        done, until = 0, time.monotonic() + min(10, seconds / 4)
        while time.monotonic() < until:
            await ask(host, port, asked[(5 * number + done) % len(asked)])
            done += 1
        return done

    began = time.monotonic()
    capacity = sum(await asyncio.gather(*(client(number) for number in range(4)))) / (time.monotonic() - began)
    before = resident(process)
    tasks: list[asyncio.Task[Answer]] = []
    rate, began, middle = TIMES * capacity, time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        while len(tasks) < rate * now:
            tasks.append(asyncio.create_task(ask(host, port, asked[len(tasks) % len(asked)])))
        middle = middle or (resident(process) if now > seconds / 2 else 0)
        await asyncio.sleep(0.005)
    ended = time.monotonic()
    pending = {task for task in tasks if not task.done()}
    while (await ask(host, port, asked[0])).seconds > 2 * alone:
        await asyncio.sleep(0.05)
    recovered = time.monotonic() - ended
    answers = [await task for task in tasks]
    assert len(answers) >= len(pending)
    return Report(alone, capacity, answers, recovered, (before, middle, resident(process)))


def run(seconds: float, log: Path) -> Report:
    """The clients have a core of their own where there are several, as they have machines of their own elsewhere."""
    asked = [question for question in questions(24) if question.status == 200]
    cores = os.sched_getaffinity(0)
    ours = {max(cores)}
    try:
        os.sched_setaffinity(0, cores - ours or cores)  # which the endpoint inherits
        with endpoint(log, "--in-flight", str(IN_FLIGHT), "--embedding-bytes", "1") as (host, port, process):
            os.sched_setaffinity(0, ours)
            return asyncio.run(drive(host, port, process.pid, seconds, asked))
    finally:
        os.sched_setaffinity(0, cores)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(chosen.seconds, Path(folder) / "log")
    statuses = Counter(one.status for one in report.answers)
    refused = [one.seconds for one in report.answers if one.status == 503]
    wrong = [one.wrong for one in report.answers if one.wrong] + [
        f"status {one.status}" for one in report.answers if one.status != 200 and not one.retry_after
    ]
    print(f"alone: 95 of 100 within {1000 * report.alone:.0f} ms; capacity {report.capacity:.1f} requests a second")
    print(f"overload: {len(report.answers) / chosen.seconds:.0f} requests a second, by status {dict(statuses)}")
    print(f"accepted: 95 of 100 within {1000 * report.accepted:.0f} ms, for a bound of {1000 * report.bound:.0f} ms")
    print(f"refused: median after {1000 * statistics.median(refused):.0f} ms")
    print(f"recovered after {report.recovered:.1f} s; memory {[round(size / 1e6) for size in report.resident]} MB")
    print(f"{len(wrong)} wrong", *wrong[:10], sep="\n")
    return 1 if wrong or report.accepted > report.bound or report.recovered > 5 else 0


if __name__ == "__main__":
    sys.exit(main())
