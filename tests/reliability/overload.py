"""Send ten times the requests that the endpoint can answer: `python -m tests.reliability.overload --seconds 120`.

The program measures the latency with one request at a time, then the capacity with a few clients. Then it sends
requests at ten times the rate of the capacity, without waiting for responses. At the end it sends one request at a time
again, to measure how soon the latency recovers.
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

from benchmarks.memory import resident
from tests.reliability.traffic import Question, endpoint, questions

IN_FLIGHT = 8
OVERLOAD_FACTOR = 10


@dataclass(frozen=True)
class Response:
    """The response to a request.

    Attributes:
        status: HTTP status.
        seconds: latency.
        wrong: description of what is wrong with the content, or None.
        retry_after: whether the response has the header Retry-After.
    """

    status: int
    seconds: float
    wrong: str | None
    retry_after: bool


@dataclass(frozen=True)
class Report:
    """Measurements of a run.

    Attributes:
        alone: 95th percentile of the latency without load, in seconds.
        capacity: requests per second.
        responses: responses under overload.
        recovered: seconds from the end of the overload until a request took at most twice `alone`.
        resident: resident memory before, in the middle of, and after the overload, in bytes.
    """

    alone: float
    capacity: float
    responses: list[Response]
    recovered: float
    resident: tuple[int, int, int]

    @property
    def accepted(self) -> float:
        """The 95th percentile of the latency of accepted requests, in seconds."""
        return percentile([response.seconds for response in self.responses if response.status == 200])

    @property
    def bound(self) -> float:
        """The limit of `accepted`: twice the latency without load, plus the time for all requests in flight."""
        return 2 * self.alone + IN_FLIGHT / self.capacity


def percentile(seconds: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(seconds)[len(seconds) * 95 // 100]


async def send(host: str, port: int, question: Question) -> Response:
    """Send a question to the endpoint, and return the response."""
    start = time.monotonic()
    reader, writer = await asyncio.open_connection(host, port)
    head = f"POST {question.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(question.body)}\r\n\r\n".encode() + question.body)
    content = await reader.read()
    writer.close()
    latency = time.monotonic() - start
    head_read, _, body = content.partition(b"\r\n\r\n")
    status = int(head_read.split()[1])
    wrong = question.wrong(status, body) if status == 200 else None
    return Response(status, latency, wrong, b"retry-after" in head_read.lower())


async def drive(host: str, port: int, process: int, seconds: float, sent_questions: list[Question]) -> Report:
    """Measure latency, capacity, overload and recovery.

    Args:
        host: host of the endpoint.
        port: port of the endpoint.
        process: process id of the endpoint.
        seconds: duration of the overload.
        sent_questions: questions, which are sent in turn.
    """

    async def one_by_one(count: int) -> list[float]:
        return [(await send(host, port, sent_questions[i % len(sent_questions)])).seconds for i in range(count)]

    await one_by_one(10)
    alone = percentile(await one_by_one(int(min(40, 10 + seconds))))

    async def client(number: int) -> int:
        done, until = 0, time.monotonic() + min(10, seconds / 4)
        while time.monotonic() < until:
            await send(host, port, sent_questions[(5 * number + done) % len(sent_questions)])
            done += 1
        return done

    start = time.monotonic()
    capacity = sum(await asyncio.gather(*(client(number) for number in range(4)))) / (time.monotonic() - start)
    before = resident(process)
    tasks: list[asyncio.Task[Response]] = []
    rate, start, middle = OVERLOAD_FACTOR * capacity, time.monotonic(), 0
    while (now := time.monotonic() - start) < seconds:
        while len(tasks) < rate * now:
            tasks.append(asyncio.create_task(send(host, port, sent_questions[len(tasks) % len(sent_questions)])))
        middle = middle or (resident(process) if now > seconds / 2 else 0)
        await asyncio.sleep(0.005)
    ended = time.monotonic()
    pending = {task for task in tasks if not task.done()}
    while (await send(host, port, sent_questions[0])).seconds > 2 * alone:
        await asyncio.sleep(0.05)
    recovered = time.monotonic() - ended
    responses = [await task for task in tasks]
    assert len(responses) >= len(pending)
    return Report(alone, capacity, responses, recovered, (before, middle, resident(process)))


def run(seconds: float, log: Path) -> Report:
    """Start an endpoint and measure it.

    If there are several processor cores, the clients run on a core of their own.

    Args:
        seconds: duration of the overload.
        log: file for the output of the endpoint.
    """
    sent_questions = [question for question in questions(24) if question.status == 200]
    cores = os.sched_getaffinity(0)
    client_cores = {max(cores)}
    try:
        os.sched_setaffinity(0, cores - client_cores or cores)  # the endpoint inherits these cores
        with endpoint(log, "--in-flight", str(IN_FLIGHT), "--embedding-bytes", "1") as (host, port, process):
            os.sched_setaffinity(0, client_cores)
            return asyncio.run(drive(host, port, process.pid, seconds, sent_questions))
    finally:
        os.sched_setaffinity(0, cores)


def main() -> int:
    """Run the program, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(options.seconds, Path(folder) / "log")
    statuses = Counter(response.status for response in report.responses)
    refused = [response.seconds for response in report.responses if response.status == 503]
    wrong = [response.wrong for response in report.responses if response.wrong] + [
        f"status {response.status}"
        for response in report.responses
        if response.status != 200 and not response.retry_after
    ]
    print(f"alone: 95 % within {1000 * report.alone:.0f} ms; capacity {report.capacity:.1f} requests per second")
    print(f"overload: {len(report.responses) / options.seconds:.0f} requests per second, by status {dict(statuses)}")
    print(f"accepted: 95 % within {1000 * report.accepted:.0f} ms; the limit is {1000 * report.bound:.0f} ms")
    print(f"refused: median after {1000 * statistics.median(refused):.0f} ms")
    print(f"recovered after {report.recovered:.1f} s; memory {[round(size / 1e6) for size in report.resident]} MB")
    print(f"{len(wrong)} wrong", *wrong[:10], sep="\n")
    return 1 if wrong or report.accepted > report.bound or report.recovered > 5 else 0


if __name__ == "__main__":
    sys.exit(main())
