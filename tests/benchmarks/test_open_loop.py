"""Open-loop load: arrivals at planned times, latencies from these times, and the largest rate that keeps a bound."""

from __future__ import annotations

import itertools
import math
import statistics
import threading
import time

import pytest

from benchmarks.open_loop import CLICK, MAX_THREADS, NEW, Arrival, Outcome, drive, largest_rate, percentile, plan


class Slow:
    """A server that answers one request at a time, each in 50 ms."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def send(self, arrival: Arrival) -> None:
        with self._turn:
            time.sleep(0.05)
        if arrival.kind == NEW:
            raise RuntimeError("status 500")


def test_a_latency_counts_from_the_planned_arrival() -> None:
    # Ten requests arrive at once at a server that needs 50 ms for each. The last one is answered after 500 ms.
    outcome = drive(Slow().send, [Arrival(0.0, CLICK, 0)] * 10)
    latencies = sorted(outcome.latencies[CLICK])
    assert len(latencies) == 10 and not outcome.errors
    assert latencies[-1] >= 0.5 and latencies[0] < latencies[4] < latencies[9]


def test_waiting_for_a_free_connection_of_the_client_counts_too() -> None:
    count = MAX_THREADS + 1
    outcome = drive(lambda arrival: time.sleep(0.3), [Arrival(0.0, CLICK, 0)] * count)
    latencies = sorted(outcome.latencies[CLICK])
    assert len(latencies) == count and latencies[0] >= 0.3 and latencies[-1] >= 0.6


def test_a_failed_request_breaks_the_bound_and_names_its_reason() -> None:
    arrivals = [Arrival(0.0, NEW, 0)] + [Arrival(0.0, CLICK, 0)] * 39
    outcome = drive(Slow().send, arrivals)
    assert not outcome.holds(math.inf)
    assert outcome.errors == {"RuntimeError: status 500": 1}
    assert max(outcome.all()) == math.inf


def test_a_run_stops_as_soon_as_its_bound_is_lost() -> None:
    arrivals = [Arrival(0.01 * number, CLICK, 0) for number in range(400)]  # 100 a second; the server answers 20
    outcome = drive(Slow().send, arrivals, bound=0.2)
    assert outcome.stopped and not outcome.holds(0.2) and len(outcome.all()) < 400


def test_the_plan_is_a_poisson_process_of_clicks_on_known_images() -> None:
    arrivals = plan(rate=50, count=4000, share_new=0.25, seed=0, images=4, settle=1.0)
    gaps = [later.time - earlier.time for earlier, later in itertools.pairwise(arrivals)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)  # exponential: the deviation is the mean
    assert sum(arrival.kind == NEW for arrival in arrivals) == pytest.approx(1000, rel=0.1)
    opened = {arrival.image: arrival.time for arrival in arrivals if arrival.kind == NEW}
    assert sorted(opened) == list(range(4, 4 + len(opened)))
    for arrival in arrivals:
        if arrival.kind == CLICK and arrival.image >= 4:
            assert opened[arrival.image] + 1.0 < arrival.time


def test_the_largest_rate_is_found_from_above_and_from_below() -> None:
    for first in (1.0, 7.0, 100.0):
        assert 9.0 <= largest_rate(lambda rate: rate <= 10, first) <= 10
    assert largest_rate(lambda rate: False, 1.0) == 0


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 95) == 4.0
    assert percentile([], 95) == math.inf
    assert Outcome(2, {CLICK: [0.1, 0.2]}).holds(0.3) and not Outcome(2, {CLICK: [0.1, 0.4]}).holds(0.3)
