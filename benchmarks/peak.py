"""Prints the megabytes that encoding an image takes above those before it: `python -m benchmarks.peak NAME plain`."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

from benchmarks import subjects
from benchmarks.model import SIZE
from benchmarks.plain import Plain
from model.segmenter import Segmenter


def held() -> float:
    """Megabytes resident now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":
    name, way = sys.argv[1:]
    segmenter = Segmenter.load(str(subjects.checkpoint(name)), "cpu")
    pixels = segmenter.family.preprocess(subjects.picture(*SIZE))[None]
    plain = Plain(subjects.checkpoint(name)) if way == "plain" else None
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = held()
    with torch.inference_mode():
        plain.embed(pixels) if plain else segmenter.family.embed(pixels)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(int(line.split()[1]) * 1024 / 1e6 - before)
