"""Cases that start a process for each measurement: memory while encoding, and a new process's first mask."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import subjects
from benchmarks.limits import lower_bound
from benchmarks.measure import BASELINE, OURS, SDPA, Cases, Result

WAYS = {BASELINE: "plain", OURS: "ours"}  # the words that `first` knows the ways by
MEMORY_WAYS = {BASELINE: "plain", SDPA: "sdpa", OURS: "ours"}  # the words that `peak` knows the ways by


def run(*words: object) -> str:
    """Run Python with these arguments in the root of the project, and return the last word that it prints."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=subjects.ROOT)
    return done.stdout.split()[-1]


def memory(name: str, turns: int) -> Iterator[Result]:
    """Measure how much the memory of a process grows while it encodes an image."""
    megabytes: dict[str, list[float]] = {way: [] for way in MEMORY_WAYS}
    for _ in range(turns):
        for way, word in MEMORY_WAYS.items():
            megabytes[way].append(float(run("-m", "benchmarks.peak", name, word)))
    yield Result("memory while encoding", name, megabytes, unit="MB")


def load(name: str, turns: int) -> Iterator[Result]:
    """Measure a new process until its first mask, from its start and from the end of its imports."""
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
    "load": (load, ("sam-tiny", "vit-l")),
}
