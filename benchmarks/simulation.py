"""Simulate replicas under load from measured stage times, with SimPy.

A replica has cores and one encoder. A request first waits for the encoder if its image is new, then for the decoder.
Each stage needs the cores for its measured seconds. The stages of all requests on a replica share the cores
equally, as threads do: with twice as many running threads as cores, each stage takes twice its measured time.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from benchmarks.open_loop import CLICK, NEW, Arrival

FETCH = "fetch"  # a click on an image that another replica has encoded: its embedding comes from the store


@dataclass(frozen=True)
class Work:
    """The seconds of one request on a replica that does nothing else.

    Attributes:
        encode: seconds in the encoder, on all cores of the replica; 0 if the image is cached.
        decode: seconds of the mask decoder, on one core.
        other: seconds of all other steps, on one core: HTTP, parsing, reading the image, masks and texts.
        after: core-seconds after the answer: writing the embedding to the store.
    """

    encode: float
    decode: float
    other: float
    after: float = 0.0


class Cores:
    """Cores that running stages share equally (processor sharing).

    Args:
        env: the simulation.
        count: number of cores.
    """

    def __init__(self, env: simpy.Environment, count: int) -> None:
        self.env, self.count = env, count
        self._stages: dict[
            simpy.Event, list[float]
        ] = {}  # remaining core-seconds, and the cores that the stage can use
        self._updated = 0.0
        self._version = 0

    def run(self, core_seconds: float, width: int = 1) -> simpy.Event:
        """Start a stage.

        Args:
            core_seconds: the work: seconds on one core, or the sum over the cores of a stage that uses several.
            width: number of cores that the stage can use at the same time.

        Returns:
            The event of the stage's end.
        """
        self._advance()
        done = self.env.event()
        if core_seconds <= 0:
            done.succeed()
            return done
        self._stages[done] = [core_seconds, min(width, self.count)]
        self._plan()
        return done

    def _speed(self) -> float:
        """Return the share of its cores that each stage gets, at most 1."""
        wanted = sum(width for _, width in self._stages.values())
        return min(1.0, self.count / wanted) if wanted else 1.0

    def _advance(self) -> None:
        """Subtract the work that was done since the last change."""
        done = (self.env.now - self._updated) * self._speed()
        for stage in self._stages.values():
            stage[0] -= done * stage[1]
        self._updated = self.env.now

    def _plan(self) -> None:
        """Schedule the end of the stage that ends next, unless another stage starts before."""
        self._version += 1
        if self._stages:
            first = min(remaining / width for remaining, width in self._stages.values()) / self._speed()
            timer = self.env.timeout(max(0.0, first), self._version)
            timer.callbacks.append(self._expire)

    def _expire(self, timer: simpy.Event) -> None:
        if timer.value != self._version:
            return
        self._advance()
        for event in [event for event, (remaining, _) in self._stages.items() if remaining <= 1e-9]:
            del self._stages[event]
            event.succeed()
        self._plan()


class Replica:
    """One process of the endpoint.

    Args:
        env: the simulation.
        cores: the cores of the replica.
    """

    def __init__(self, env: simpy.Environment, cores: Cores) -> None:
        self.env, self.cores = env, cores
        self.encoder, self.decoder = simpy.Resource(env), simpy.Resource(env)

    def answer(self, work: Work) -> Generator[simpy.Event, Any, None]:
        """Process one request."""
        yield self.cores.run(work.other / 2)
        if work.encode:
            with self.encoder.request() as turn:
                yield turn
                yield self.cores.run(work.encode * self.cores.count, self.cores.count)
        with self.decoder.request() as turn:
            yield turn
            yield self.cores.run(work.decode)
        yield self.cores.run(work.other / 2)
        self.cores.run(work.after)


def simulate(
    work: Mapping[str, Sequence[Work]],
    arrivals: Iterable[Arrival],
    replicas: int,
    cores: int,
    known: Sequence[Iterable[int]] = (),
    seed: int = 0,
) -> dict[str, list[float]]:
    """Simulate replicas behind a load balancer that sends them requests in turn.

    A click needs the store (`fetch`) if its image is unknown to the replica that gets it, and the replica then keeps
    the embedding. The work of each request is drawn from the measured requests of its kind.

    Args:
        work: measured requests by kind. Without `fetch`, such clicks take the work of `click`.
        arrivals: the requests, sorted by time.
        replicas: number of replicas.
        cores: number of cores of each replica.
        known: the numbers of the images that each replica keeps at the start.
        seed: seed of the random numbers.

    Returns:
        The latencies in seconds, by the kind of arrival.
    """
    env, rng = simpy.Environment(), random.Random(seed)
    pool = [Replica(env, Cores(env, cores)) for _ in range(replicas)]
    kept = [set(known[number]) if known else set() for number in range(replicas)]
    latencies: dict[str, list[float]] = {NEW: [], CLICK: []}

    def request(arrival: Arrival, number: int) -> Generator[simpy.Event, Any, None]:
        kind = arrival.kind
        if kind == CLICK and arrival.image not in kept[number]:
            kind = FETCH if FETCH in work else CLICK
        kept[number].add(arrival.image)
        yield env.process(pool[number].answer(rng.choice(work[kind])))
        latencies[arrival.kind].append(env.now - arrival.time)

    def source() -> Generator[simpy.Event, Any, None]:
        for count, arrival in enumerate(arrivals):
            yield env.timeout(max(0.0, arrival.time - env.now))
            env.process(request(arrival, count % replicas))

    env.process(source())
    env.run()
    return latencies


def busy_seconds(work: Sequence[Work], cores: int) -> float:
    """Return the mean seconds for which one request keeps all cores of a replica busy."""
    return sum(one.encode + (one.decode + one.other + one.after) / cores for one in work) / len(work)
