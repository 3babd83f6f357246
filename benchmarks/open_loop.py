"""Send requests at planned times, whether or not earlier requests have been answered.

A client that waits for an answer before it sends its next request slows down with the server, and so hides the time in
which requests wait. Here, the arrivals are planned in advance, and a latency counts from the planned time. If the
server falls behind, each later request shows the whole delay.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

MAX_THREADS = 256  # requests that wait for an answer at the same time; more wait in the client, and still count


NEW, CLICK = "new", "click"


@dataclass(frozen=True)
class Arrival:
    """One planned request.

    Attributes:
        time: seconds from the start.
        kind: NEW for an unknown image, CLICK for an image that an earlier request sent.
        image: number of the image.
    """

    time: float
    kind: str
    image: int


@dataclass
class Outcome:
    """What a run measured.

    Attributes:
        planned: number of planned requests.
        latencies: seconds from the planned time to the answer, by kind of request.
        errors: number of failed requests, by the reason.
        stopped: whether the run was stopped because too many requests were late.
    """

    planned: int
    latencies: dict[str, list[float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    def all(self) -> list[float]:
        """Return the latencies of all kinds in seconds. A failed request counts as infinite."""
        return [value for values in self.latencies.values() for value in values] + [math.inf] * self.errors.total()

    def holds(self, bound: float) -> bool:
        """Return whether all requests were answered, and the 95th percentile of their latencies is under a bound."""
        return not self.stopped and not self.errors and percentile(self.all(), 95) < bound


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` percent of the values do not exceed; infinite without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.inf


def plan(rate: float, count: int, share_new: float, seed: int, images: int = 16, settle: float = 1.0) -> list[Arrival]:
    """Plan the requests of people who click on images that the server keeps, and sometimes open a new image.

    Args:
        rate: requests per second; their times are a Poisson process.
        count: number of requests.
        share_new: share of the requests with a new image, from 0 to 1.
        seed: seed of the random numbers.
        images: number of the latest images that people click on. At the start, these are the images 0 to `images` - 1,
            which the server already keeps.
        settle: seconds after which a new image may be clicked on; not less than it takes to answer.

    Returns:
        The requests, sorted by time.
    """
    rng = random.Random(seed)
    now, latest = 0.0, list(range(images))
    opened: list[Arrival] = []
    arrivals = []
    number = itertools.count(images)
    for _ in range(count):
        now += rng.expovariate(rate)
        while opened and opened[0].time + settle < now:
            latest = [*latest[1:], opened.pop(0).image]
        if rng.random() < share_new:
            arrival = Arrival(now, NEW, next(number))
            opened.append(arrival)
        else:
            arrival = Arrival(now, CLICK, rng.choice(latest))
        arrivals.append(arrival)
    return arrivals


def drive(
    send: Callable[[Arrival], None],
    arrivals: Sequence[Arrival],
    bound: float = math.inf,
    tolerated: float = 0.05,
) -> Outcome:
    """Send requests at planned times, and measure their latencies from these times.

    Args:
        send: sends a request and returns once the answer has been read. It raises an exception if the request fails.
        arrivals: the requests, sorted by time.
        bound: bound of the latency in seconds. The run stops as soon as more than `tolerated` of all planned requests
            are over it, or have failed.
        tolerated: share of the planned requests, from 0 to 1.

    Returns:
        What the run measured.
    """
    outcome = Outcome(len(arrivals))
    lock, stop = threading.Lock(), threading.Event()
    over = 0
    started = time.perf_counter()

    def request(arrival: Arrival) -> None:
        nonlocal over
        if stop.is_set():
            return
        error = ""
        try:
            send(arrival)
        except Exception as failure:  # a refused or broken connection, or a status other than 200
            error = f"{type(failure).__name__}: {failure}"[:100]
        seconds = time.perf_counter() - started - arrival.time
        with lock:
            if error:
                outcome.errors[error] += 1
            else:
                outcome.latencies.setdefault(arrival.kind, []).append(seconds)
            over += bool(error) or seconds >= bound
            if over > tolerated * outcome.planned:
                outcome.stopped = True
                stop.set()

    with ThreadPoolExecutor(MAX_THREADS) as pool:
        futures: list[Future[None]] = []
        for arrival in arrivals:
            if stop.wait(max(0.0, started + arrival.time - time.perf_counter())):
                break
            futures.append(pool.submit(request, arrival))
        for future in futures:
            future.result()
    return outcome


def largest_rate(holds: Callable[[float], bool], first: float, steps: int = 4) -> float:
    """Return the largest rate that holds, within a factor of `2 ** (1 / 2 ** steps)`.

    Doubles or halves the rate until one rate holds and its double does not, then bisects geometrically.

    Args:
        holds: whether the server keeps its bound at a rate, in requests per second.
        first: the rate to begin with.
        steps: number of bisections.

    Returns:
        The largest rate that held, or 0 if none of ten halvings held.
    """
    low, high = first, 2 * first
    if holds(low):
        while holds(high):
            low, high = high, 2 * high
    else:
        for _ in range(10):
            low, high = low / 2, low
            if holds(low):
                break
        else:
            return 0.0
    for _ in range(steps):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
