"""Measure the stage times of requests on a server that does nothing else, and save them as JSON.

Examples:
  python -m benchmarks stages --on sam-tiny --output out/stages.json
  python -m benchmarks stages --on vit-b --requests 10 --output out/vit-b.json

The file is the input of `python -m benchmarks sizing`. On a machine with a GPU, the server uses the GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory, subjects
from benchmarks.batch import packaged
from benchmarks.endpoint import new_image, post, server_process
from benchmarks.measure import machine
from benchmarks.open_loop import CLICK, NEW
from benchmarks.simulation import FETCH, Work

ROWS = 64  # rows of one image in one request, to measure the time of a row in a table
_CLOCK = os.sysconf("SC_CLK_TCK")


@dataclass
class Stages:
    """What was measured on one machine, for one model.

    Attributes:
        model: name of the model.
        machine: description of the machine.
        device: name of the GPU, or `cpu`.
        cores: number of cores of a replica.
        embedding_bytes: bytes of one embedding.
        process_bytes: resident bytes of a replica without embeddings.
        answer_bytes: bytes of the answer to one row with one prompt.
        row_seconds: seconds of one row in a table, without those of its image.
        work: the measured requests, by kind: `new`, `click`, and `fetch` if there was a store.
    """

    model: str
    machine: str
    device: str
    cores: int
    embedding_bytes: int
    process_bytes: int
    answer_bytes: int
    row_seconds: float
    work: dict[str, list[Work]]

    @property
    def image_seconds(self) -> float:
        """Seconds to read and encode one image, without those of a prompt."""
        new, click = (statistics.mean(map(_busy, self.work[kind])) for kind in (NEW, CLICK))
        return max(0.0, new - click)

    def save(self, file: Path) -> None:
        """Write the measurement as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Stages:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not such a measurement.
        """
        try:
            values = json.loads(file.read_text())
            values["work"] = {kind: [Work(**one) for one in works] for kind, works in values["work"].items()}
            stages = cls(**values)
            if not (stages.work[NEW] and stages.work[CLICK]):
                raise ValueError("no requests")
            return stages
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"'{file}': expected stage times, as `python -m benchmarks stages` writes them ({type(error).__name__})"
            ) from None


def _busy(work: Work) -> float:
    return work.encode + work.decode + work.other


class Endpoint:
    """One replica whose requests are measured, one at a time.

    Args:
        url: its URL.
        pids: the processes whose processor time counts: the replica, and what it needs for a request.
    """

    def __init__(self, url: str, pids: Sequence[int] = ()) -> None:
        self.url, self.pids = url, pids
        self._boxes = itertools.cycle(subjects.boxes(64, *subjects.SIZE))

    def ask(self, image_id: str, image: str | None = None, rows: int = 1) -> Any:
        """Send rows with one box each on an image: a new one, or one that the server keeps."""
        row = {"image_id": image_id} if image is None else {"image_id": image_id, "image": image}
        table = [
            {**(row if i == 0 else {"image_id": image_id}), "input_boxes": [next(self._boxes)]} for i in range(rows)
        ]
        return post(self.url, "/score", {"input_data": table, "params": {"mask_encoding": "rle"}})

    def measure(self, requests: Sequence[Callable[[], Any]], settle: float = 0.0) -> list[Work]:
        """Send requests one after the other, and return the work of each.

        Args:
            requests: each sends one request.
            settle: seconds to wait after each request for work that goes on after the answer.
        """
        works, after = [], 0.0
        for request in requests:
            earlier, started = self.seconds("encode", "prompt"), time.perf_counter()
            request()
            seconds = time.perf_counter() - started
            encode, decode = (now - then for now, then in zip(self.seconds("encode", "prompt"), earlier, strict=True))
            works.append(Work(encode, decode, max(0.0, seconds - encode - decode)))
            if settle:
                before = processor_seconds(self.pids)
                time.sleep(settle)
                after += processor_seconds(self.pids) - before
        return [Work(work.encode, work.decode, work.other, after / len(works)) for work in works]

    def seconds(self, *stages: str) -> list[float]:
        """Return the seconds that the server has spent so far in each stage."""
        values = self.metrics()
        return [values.get(f'sam_stage_seconds_sum{{stage="{stage}"}}', 0.0) for stage in stages]

    def metrics(self) -> dict[str, float]:
        """Return the server's metrics by name and labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def processor_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of processes so far, in seconds."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(values[11]) + int(values[12]) for values in fields) / _CLOCK


def measure(
    name: str, first: Endpoint, pid: int, requests: int, second: Endpoint | None = None, cores: int | None = None
) -> Stages:
    """Measure the stage times of a replica.

    Args:
        name: name of the model.
        first: the replica.
        pid: its process.
        requests: number of measured requests of each kind.
        second: another replica with the same store. Clicks there on images of the first replica read the store.
        cores: number of cores of the replica; None for all cores of this process.
    """
    images = [new_image(number) for number in range(10_000, 10_000 + requests + 2)]
    names = [f"stage-{number}" for number in range(len(images))]
    for i in (0, 1):
        first.ask(names[i], images[i])
        first.ask(names[i])
    if second is not None:
        second.ask("warm", new_image(9_999))
    settle = 0.3 if second is not None else 0.0
    kept = first.metrics()["sam_embedding_bytes"]
    process_bytes = memory.resident(pid)
    work = {NEW: first.measure([partial(first.ask, names[i], images[i]) for i in range(2, len(names))], settle)}
    embedding_bytes = round((first.metrics()["sam_embedding_bytes"] - kept) / requests)
    work[CLICK] = first.measure([lambda: first.ask(names[0])] * max(30, requests))
    if second is not None:
        work[FETCH] = second.measure([partial(second.ask, names[i]) for i in range(2, len(names))])
    answer = first.ask(names[0], rows=ROWS)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        first.ask(names[0], rows=ROWS)
        seconds.append((time.perf_counter() - started) / ROWS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return Stages(
        name,
        machine(),
        device,
        cores or len(os.sched_getaffinity(0)),
        embedding_bytes,
        process_bytes,
        round(len(json.dumps(answer)) / ROWS),
        statistics.median(seconds),
        work,
    )


@contextlib.contextmanager
def _store(folder: str | None) -> Iterator[str]:
    if folder is not None:
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield temporary


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks stages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--on", default="sam-tiny", choices=(*subjects.EMBEDDED, *subjects.RANDOM), help="the model")
    parser.add_argument("--requests", type=int, default=20, help="measured requests (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--store", help="folder or fsspec URL of the store (default: a temporary folder)")
    options = parser.parse_args(arguments)
    with _store(options.store) as store:
        command = ["sam_endpoint", "serve", "--model", str(packaged(options.on)), "--port", "PORT"]
        command += ["--embedding-store", store]
        with server_process(command, "/ready") as (url, pid), server_process(command, "/ready") as (other, other_pid):
            second = Endpoint(other, [other_pid])
            stages = measure(options.on, Endpoint(url, [pid]), pid, options.requests, second)
    stages.save(options.output)
    for kind, works in stages.work.items():
        parts = [
            f"{statistics.median(getattr(one, part) for one in works) * 1000:,.1f} ms {part}"
            for part in Work.__annotations__
        ]
        print(f"{kind:12} {', '.join(parts)}")
    print(f"written      {options.output}")
    return 0
