"""Compute replicas, GPUs, memory and cost from measured stage times.

Examples:
  python -m benchmarks sizing --stages out/stages.json --people 20 --price 0.20
  python -m benchmarks sizing --stages out/stages.json --images 5000 --rows 1000000 --rows-per-image 7 --price 0.20
  python -m benchmarks sizing --stages out/stages.json --rows 1000000000 --rows-per-image 7 --price 0.20 --cores 2000

`python -m benchmarks stages` measures the stage times. The stage times of one machine say nothing about another one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.open_loop import CLICK, NEW, percentile, plan
from benchmarks.simulation import busy_seconds, simulate
from benchmarks.sizing_batch import HOUR, describe_batch, format_bytes, format_cores, format_time
from benchmarks.stages import Stages

MAX_REQUESTS = 6000  # simulated requests; more than an hour of most teams
MAX_REPLICAS = 1000
RECENT_IMAGES = 5  # images of one person that are in use at the same time


@dataclass(frozen=True)
class People:
    """People who click in the busiest hour.

    Attributes:
        count: number of people.
        clicks: clicks of one person per minute.
        clicks_per_image: clicks of one person on an image, after which the person opens a new one.
    """

    count: int
    clicks: float = 10.0
    clicks_per_image: float = 15.0

    @property
    def rate(self) -> float:
        """Requests per second; opening an image is a request too."""
        return self.count * self.clicks / 60 * (1 + 1 / self.clicks_per_image)

    @property
    def share_new(self) -> float:
        """Share of the requests that open a new image."""
        return 1 / (1 + self.clicks_per_image)


@dataclass(frozen=True)
class Interactive:
    """Replicas for people who click.

    Attributes:
        replicas: number of replicas; 0 if no number of replicas keeps the bound.
        busy: share of the time for which their cores are busy.
        latencies: 50th, 95th and 99th percentile of all requests in seconds.
        click: 95th percentile of the clicks in seconds.
        new: 95th percentile of the requests with a new image in seconds.
        cache_bytes: bytes of the embeddings in use, in each replica.
    """

    replicas: int
    busy: float
    latencies: tuple[float, float, float]
    click: float
    new: float
    cache_bytes: int


def size_people(stages: Stages, people: People, bound: float, images_an_hour: float = 0.0) -> Interactive:
    """Find the smallest number of replicas whose simulated 95th percentile is under a bound.

    Args:
        stages: measured stage times.
        people: the people.
        bound: bound of the 95th percentile of all requests in seconds.
        images_an_hour: further new images, which arrive on the same replicas at random times.
    """
    rate = people.rate + images_an_hour / HOUR
    share_new = (people.rate * people.share_new + images_an_hour / HOUR) / rate
    mean = sum(
        share * busy_seconds(stages.work[kind], stages.cores)
        for kind, share in ((NEW, share_new), (CLICK, 1 - share_new))
    )
    count = min(MAX_REQUESTS, max(1000, round(rate * HOUR)))
    images = max(1, people.count * RECENT_IMAGES)
    arrivals = plan(rate, count, share_new, seed=1, images=images, settle=bound)
    replicas = max(1, math.floor(rate * mean))
    while replicas <= MAX_REPLICAS:
        kept = [range(number, images, replicas) for number in range(replicas)]
        latencies = simulate(stages.work, arrivals, replicas, stages.cores, kept)
        together = latencies[NEW] + latencies[CLICK]
        if percentile(together, 95) < bound:
            percents = (percentile(together, 50), percentile(together, 95), percentile(together, 99))
            tails = [percentile(latencies[kind], 95) if latencies[kind] else 0.0 for kind in (CLICK, NEW)]
            # Without a load balancer that sends a person to the same replica, each replica keeps all images in use.
            return Interactive(
                replicas, rate * mean / replicas, percents, tails[0], tails[1], images * stages.embedding_bytes
            )
        if min(one.encode + one.decode + one.other for one in stages.work[NEW if share_new > 0.05 else CLICK]) > bound:
            break
        replicas = max(replicas + 1, round(1.1 * replicas))
    return Interactive(0, 0.0, (math.inf,) * 3, math.inf, math.inf, 0)


def report(stages: Stages, options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the command's output: Markdown tables."""
    gpus = stages.device != "cpu"
    unit = f"replica (1 GPU, {stages.device})" if gpus else f"replica ({format_cores(stages.cores)})"
    yield f"Model {stages.model}, stage times of: {stages.machine}"
    yield f"One {unit} at {options.price:g} dollars an hour."
    yield ""
    yield "| | |"
    yield "|---|---|"
    if options.people:
        people = People(options.people, options.clicks, options.clicks_per_image)
        sized = size_people(stages, people, options.bound, options.images)
        rates = f"{people.rate:.3g} a second, {people.share_new:.1%} with a new image"
        yield f"| requests of {people.count} people | {rates} |"
        if options.images:
            yield f"| further images | {options.images:,} an hour |"
        if not sized.replicas:
            yield f"| replicas | none: 95 % within {options.bound:g} s cannot be reached on this machine |"
        else:
            yield from _describe_people(stages, sized, options.price, gpus)
    elif options.images:
        replicas = math.ceil(options.images * stages.image_seconds / HOUR / 0.8)
        yield f"| {options.images:,} images an hour | {replicas} replicas, busy 80 % of the time at most |"
        if gpus:
            yield f"| GPUs | {replicas} |"
        yield f"| cost | {replicas * options.price:,.2f} dollars an hour |"
    if options.rows:
        yield from describe_batch(stages, options)


def _describe_people(stages: Stages, sized: Interactive, price: float, gpus: bool) -> Iterator[str]:
    middle, high, highest = sized.latencies
    yield f"| replicas | {sized.replicas}; {max(2, sized.replicas)} if one may restart |"
    if gpus:
        yield f"| GPUs | {sized.replicas} |"
    yield f"| busy | {sized.busy:.0%} |"
    yield f"| all requests | median {format_time(middle)}, 95 % {format_time(high)}, 99 % {format_time(highest)} |"
    yield f"| clicks, new images | 95 % {format_time(sized.click)}, 95 % {format_time(sized.new)} |"
    yield f"| embeddings in use | {format_bytes(sized.cache_bytes)} in each replica |"
    memory = format_bytes(stages.process_bytes + sized.cache_bytes)
    yield f"| memory of a replica | {memory}, plus `--memory` for requests |"
    yield f"| cost | {sized.replicas * price:,.2f} dollars an hour |"


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", type=Path, required=True, help="JSON file of `python -m benchmarks stages`")
    parser.add_argument("--price", type=float, required=True, help="dollars an hour for a replica's machine")
    parser.add_argument("--people", type=int, default=0, help="people who click at the same time")
    parser.add_argument("--clicks", type=float, default=10, help="clicks of a person per minute (default: %(default)s)")
    parser.add_argument("--clicks-per-image", type=float, default=15, help="clicks on an image (default: %(default)s)")
    parser.add_argument(
        "--bound", type=float, default=1.0, help="seconds for 95 %% of the requests (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=0, help="further new images an hour")
    parser.add_argument("--rows", type=int, default=0, help="rows of a table, with one prompt each")
    parser.add_argument("--rows-per-image", type=float, default=7, help="rows of an image (default: %(default)s)")
    parser.add_argument("--cores", type=int, help="cores of the Spark cluster (default: those of one replica)")
    parser.add_argument("--files", type=int, default=100, help="input files of the table (default: %(default)s)")
    parser.add_argument("--store", action="store_true", help="the batch job also stores all embeddings")
    options = parser.parse_args(arguments)
    if not (options.people or options.images or options.rows):
        parser.error("nothing to size; give --people, --images or --rows")
    values = ("price", "clicks", "clicks_per_image", "bound", "rows_per_image")
    bad = [name for name in values if not (getattr(options, name) > 0 and math.isfinite(getattr(options, name)))]
    bad += [name for name in ("people", "images", "rows") if getattr(options, name) < 0]
    if bad:
        parser.error(f"--{bad[0].replace('_', '-')}: expected a positive number, got {getattr(options, bad[0])}")
    try:
        stages = Stages.read(options.stages)
    except (OSError, ValueError) as error:
        parser.error(f"--stages: {error}")
    print("\n".join(report(stages, options)))
    return 0
