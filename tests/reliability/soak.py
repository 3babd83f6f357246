"""Send mixed traffic to the endpoint for a long time: `python -m tests.reliability.soak --minutes 30`.

Clients send requests in three dialects, some of which are invalid. The program compares each response with the expected
response. It reads the memory of the endpoint repeatedly. The growth of memory is the median of the last fifth of the
readings relative to the median of the second fifth.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.memory import resident
from sam_endpoint.scoring.batch.progress import Progress
from tests.reliability.traffic import Question, endpoint, questions

CLIENTS = 6
MAX_GROWTH = 0.02


@dataclass
class Report:
    """Measurements of a run.

    Attributes:
        statuses: number of responses per HTTP status.
        wrong: description of each response that was lost or wrong.
        resident: readings of the resident memory, in bytes.
        seconds: latency of each response.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The growth of the resident memory, 0.01 for 1 %."""
        fifth = max(1, len(self.resident) // 5)
        return statistics.median(self.resident[-fifth:]) / statistics.median(self.resident[fifth : 2 * fifth]) - 1


def run(seconds: float, log: Path, requests: Sequence[Question], *options: str, min_responses: int = 0) -> Report:
    """Send requests from several clients at the same time.

    Args:
        seconds: duration of the traffic.
        log: file for the output of the endpoint.
        requests: questions, which each client sends in turn.
        *options: options of `serve`.
        min_responses: minimum number of responses. The traffic continues after `seconds` until it has this number.

    Returns:
        Measurements, which include every request that was sent.
    """
    report = Report()

    def continues() -> bool:
        return time.monotonic() < until or len(report.seconds) + len(report.wrong) < min_responses

    with endpoint(log, *options) as (host, port, process), Progress("sending", "second", round(seconds)) as progress:
        until = time.monotonic() + seconds

        def client(number: int) -> None:
            connection, turn = http.client.HTTPConnection(host, port, timeout=60), number
            while continues():
                question, turn = requests[turn % len(requests)], turn + 1
                start = time.monotonic()
                try:
                    connection.request("POST", question.path, question.body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    status, body = response.status, response.read()
                except (OSError, http.client.HTTPException) as error:
                    report.wrong.append(f"{question.path}: lost ({error!r})")
                    connection.close()
                    continue
                report.seconds.append(time.monotonic() - start)
                report.statuses[status] += 1
                if (problem := question.wrong(status, body)) is not None:
                    report.wrong.append(problem)

        clients = [threading.Thread(target=client, args=[7 * number]) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        pause = min(1, seconds / 20)
        while continues():
            time.sleep(pause)
            report.resident.append(resident(process.pid))
            progress.add(round(pause))
        for thread in clients:
            thread.join()
    return report


def main() -> int:
    """Run the program, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # The cache is so small that the endpoint has to encode images all the time.
        report = run(60 * options.minutes, Path(folder) / "log", questions(48), "--embedding-bytes", "10000000")
    times = sorted(report.seconds)
    print(f"{sum(report.statuses.values())} requests, by status {dict(report.statuses)}")
    print(f"median {1000 * times[len(times) // 2]:.0f} ms, 95 % within {1000 * times[len(times) * 95 // 100]:.0f} ms")
    print(f"memory {report.resident[0] / 1e6:.0f} to {report.resident[-1] / 1e6:.0f} MB, grown by {report.growth:.2%}")
    print(f"{len(report.wrong)} lost, swapped or wrong responses", *report.wrong[:10], sep="\n")
    return 1 if report.wrong or report.growth > MAX_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
