"""Benchmark case of the load that a server bears: the largest rate of requests that keeps a bound of the latency."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator

from benchmarks import subjects
from benchmarks.batch import packaged
from benchmarks.endpoint import PLAIN, new_image, post, running_server
from benchmarks.measure import OURS, RATE, Cases, Result
from benchmarks.open_loop import CLICK, NEW, Arrival, Outcome, drive, largest_rate, percentile, plan

SHARE_NEW = 1 / 16  # a new image, then fifteen clicks on it
KEPT = 16  # images that the server keeps at the start, and that people click on
SECONDS = 12.0  # duration of a run
MIN_REQUESTS = 20  # of a run at a low rate
SETTLE = 3  # a new image is clicked on after this multiple of the bound, so that its answer has come
# The bound of the 95th percentile in seconds. A click takes milliseconds. But a new image has to be encoded, and the
# plain server encodes the image for every click.
BOUNDS = {"sam-tiny": 1.0, "sam2-tiny": 1.0}
SLOW = 60.0  # the bound of models of Meta's sizes


class Sender:
    """Sends the planned requests of `open_loop.plan` to a server.

    Args:
        url: URL of the server.
        plain: whether it is the plain server, which keeps no image: a click sends its image again.
    """

    def __init__(self, url: str, plain: bool = False) -> None:
        self.url, self.plain = url, plain
        self.texts: dict[int, str] = {}
        self._answered: set[int] = set()
        self._boxes = itertools.cycle(subjects.boxes(64, *subjects.SIZE))
        self._lock = threading.Lock()
        self._run = 0

    def prepare(self, arrivals: list[Arrival]) -> None:
        """Write the images of a run, so that the run does not spend time on them; each run has images of its own."""
        self._run += 1
        self._answered = set(range(KEPT))
        self.texts = {image: new_image(self._number(image)) for image in {arrival.image for arrival in arrivals}}

    def keep(self, images: int) -> None:
        """Send the images that the server is to keep at the start, one after the other."""
        for image in range(images):
            row = {"image": new_image(image), "image_id": self._name(image), "input_boxes": [[10.0, 10.0, 90.0, 90.0]]}
            post(self.url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})

    def send(self, arrival: Arrival) -> None:
        """Send one request, and read its answer."""
        with self._lock:
            box = next(self._boxes)
        if self.plain:
            post(self.url, "/score", {"image": self.texts[arrival.image], "box": box})
            return
        image = arrival.image
        if arrival.kind == CLICK and image not in self._answered:  # nobody can click on an image that is not shown yet
            image %= KEPT
        row = {"image_id": self._name(image), "input_boxes": [box]}
        if arrival.kind == NEW:
            row["image"] = self.texts[image]
        post(self.url, "/score", {"input_data": [row], "params": {"mask_encoding": "rle"}})
        self._answered.add(image)

    def _number(self, image: int) -> int:
        return image if image < KEPT else self._run * 100_000 + image

    def _name(self, image: int) -> str:
        return f"load-{self._number(image)}"


def run(sender: Sender, rate: float, bound: float, seed: int, seconds: float = SECONDS) -> Outcome:
    """Send requests at a rate for some seconds, and return what was measured."""
    count = max(MIN_REQUESTS, round(rate * seconds))
    arrivals = plan(rate, count, SHARE_NEW, seed, KEPT, settle=SETTLE * bound)
    sender.prepare(arrivals)
    return drive(sender.send, arrivals, bound)


def load(name: str, turns: int) -> Iterator[Result]:
    """Measure the largest rate at which 95 % of the requests are answered within a bound, for both servers in turn."""
    bound = BOUNDS.get(name, SLOW)
    command = ["sam_endpoint", "serve", "--model", str(packaged(name)), "--port", "PORT"]
    rates: dict[str, list[float]] = {PLAIN: [], OURS: []}
    details: dict[str, str] = {}
    with (
        running_server(["benchmarks.plain_server", name, "PORT"], "/openapi.json") as plain,
        running_server(command, "/ready") as ours,
    ):
        senders = {PLAIN: Sender(plain, plain=True), OURS: Sender(ours)}
        senders[OURS].keep(KEPT)
        first = {way: _alone(sender) for way, sender in senders.items()}
        for turn in range(turns):
            for way, sender in senders.items():
                held: list[Outcome] = []
                rates[way].append(largest_rate(_holds(sender, bound, turn, held), first[way], steps=3))
                first[way] = rates[way][-1] or first[way]
                details[way] = _describe(held[-1]) if held else "no rate held"
    note = "; ".join(f"{way}: {text}" for way, text in details.items())
    share = f"one request in {round(1 / SHARE_NEW)} has a new image"
    yield Result(f"largest rate, 95 % within {bound:g} s, {share}", name, rates, unit=RATE, note=note)


def _holds(sender: Sender, bound: float, seed: int, held: list[Outcome]) -> Callable[[float], bool]:
    def holds(rate: float) -> bool:
        outcome = run(sender, rate, bound, seed)
        if outcome.holds(bound):
            held.append(outcome)
        return outcome.holds(bound)

    return holds


def _alone(sender: Sender) -> float:
    """Return half the rate of a client that sends one request after the other."""
    arrivals = [
        Arrival(0.0, NEW, KEPT),
        *(Arrival(0.0, CLICK, image) for image in range(1 if sender.plain else KEPT - 1)),
    ]
    sender.prepare(arrivals)
    outcome = Outcome(len(arrivals))
    for arrival in arrivals:
        outcome.latencies.setdefault(arrival.kind, []).extend(
            value for values in drive(sender.send, [arrival]).latencies.values() for value in values
        )
    return 0.5 * len(outcome.all()) / sum(outcome.all())


def _describe(outcome: Outcome) -> str:
    return ", ".join(
        f"{kind} {percentile(seconds, 50):.3g} s (95 %: {percentile(seconds, 95):.3g} s)"
        for kind, seconds in sorted(outcome.latencies.items())
    )


CASES: Cases = {
    "load": (load, ("sam-tiny", "vit-b")),
}
