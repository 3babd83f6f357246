"""Benchmark cases with a new process for each measurement: memory while encoding, and the time to the first mask."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import subjects
from benchmarks.limits import lower_bound
from benchmarks.measure import BASELINE, EAGER, OURS, Cases, Result

WAYS = {BASELINE: "plain", EAGER: "eager", OURS: "ours"}  # the names of the implementations in `first` and `peak`


def run(*words: object) -> str:
    """Run Python with arguments in the project's top folder, and return the last word of its output."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=subjects.ROOT)
    return done.stdout.split()[-1]


def memory(name: str, turns: int) -> Iterator[Result]:
    """Measure by how much the memory of a process grows while it encodes an image."""
    megabytes: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way, word in WAYS.items():
            megabytes[way].append(float(run("-m", "benchmarks.peak", name, word)))
    yield Result("memory while encoding", name, megabytes, unit="MB")


def start(name: str, turns: int) -> Iterator[Result]:
    """Measure the time to the first mask of a new process, from its start and from the end of its imports."""
    from_start: dict[str, list[float]] = {way: [] for way in WAYS}
    from_imports: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.NamedTemporaryFile(suffix=".jpg") as image:
        Path(image.name).write_bytes(subjects.jpeg(subjects.picture(*subjects.SIZE)))
        box = ",".join(map(str, subjects.boxes(1, *subjects.SIZE)[0]))
        for _ in range(turns):
            for way, word in WAYS.items():
                started = time.perf_counter()
                seconds = run("-m", "benchmarks.first", subjects.checkpoint(name), image.name, box, word)
                from_start[way].append(time.perf_counter() - started)
                from_imports[way].append(float(seconds))
    weights = (subjects.checkpoint(name) / "model.safetensors").stat().st_size
    floor = lower_bound(name, images=1, prompts=1, moved=2 * weights)  # the weights are read once and written once
    yield Result("load to first mask", name, from_imports, floor=floor)
    yield Result("start to first mask", name, from_start, floor=floor)


CASES: Cases = {
    "memory": (memory, ("vit-b",)),
    "start": (start, ("sam-tiny", "vit-l")),
}
