"""Mixed traffic on the embedded model for as long as asked: `python -m tests.reliability.soak --minutes 30`.

Clients ask in three dialects, some of them wrongly; each answer is compared with what its own request must get. Memory
is read all the while: its growth is that of the median of the last fifth over the median of the second.
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

from tqdm import tqdm

from tests.reliability.traffic import Question, endpoint, questions, resident

CLIENTS = 6
MOST_GROWTH = 0.02


@dataclass
class Report:
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        fifth = max(1, len(self.resident) // 5)
        return statistics.median(self.resident[-fifth:]) / statistics.median(self.resident[fifth : 2 * fifth]) - 1


def run(seconds: float, log: Path, asked: Sequence[Question], *options: str, least: int = 0) -> Report:
    """What came of so many seconds of traffic, and of more until there are `least` answers; every request that was
    sent is in it."""
    report = Report()

    def goes_on() -> bool:
        return time.monotonic() < until or len(report.seconds) + len(report.wrong) < least

    with endpoint(log, *options) as (host, port, process), tqdm(total=round(seconds), unit="s", disable=None) as bar:
        until = time.monotonic() + seconds

        def client(number: int) -> None:
            connection, turn = http.client.HTTPConnection(host, port, timeout=60), number
            while goes_on():
                question, turn = asked[turn % len(asked)], turn + 1
                began = time.monotonic()
                try:
                    connection.request("POST", question.path, question.body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    status, body = response.status, response.read()
                except (OSError, http.client.HTTPException) as error:
                    report.wrong.append(f"{question.path}: lost ({error!r})")
                    connection.close()
                    continue
                report.seconds.append(time.monotonic() - began)
                report.statuses[status] += 1
                if (said := question.wrong(status, body)) is not None:
                    report.wrong.append(said)

        clients = [threading.Thread(target=client, args=[7 * number]) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        while goes_on():
            time.sleep(min(1, seconds / 20))
            report.resident.append(resident(process.pid))
            bar.n = min(bar.total, round(seconds - (until - time.monotonic())))
            bar.refresh()
        for one in clients:
            one.join()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # So few embeddings are kept that images are encoded all the time.
        report = run(60 * chosen.minutes, Path(folder) / "log", questions(48), "--embedding-bytes", "10000000")
    times = sorted(report.seconds)
    print(f"{sum(report.statuses.values())} requests, by status {dict(report.statuses)}")
    print(
        f"median {1000 * times[len(times) // 2]:.0f} ms, 95 of 100 within {1000 * times[len(times) * 95 // 100]:.0f} ms"
    )
    print(f"memory {report.resident[0] / 1e6:.0f} to {report.resident[-1] / 1e6:.0f} MB, grown by {report.growth:.2%}")
    print(f"{len(report.wrong)} lost, crossed or wrong", *report.wrong[:10], sep="\n")
    return 1 if report.wrong or report.growth > MOST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
