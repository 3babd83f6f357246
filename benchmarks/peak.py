"""Print by how many megabytes the memory of a process grows while it encodes an image.

Usage: python -m benchmarks.peak NAME plain|eager|ours
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from sam_endpoint.scoring.process import configure_process


def resident() -> float:
    """Return the resident memory in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Return the peak of the resident memory since the last reset or the start of the program, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def added(name: str, way: str) -> float:
    """Return by how many megabytes the peak while encoding exceeds the memory before.

    Args:
        name: name of the checkpoint.
        way: `plain`, `eager` or `ours`.
    """
    import torch

    from benchmarks import subjects
    from benchmarks.plain import Plain

    segmenter = subjects.load(name)
    pixels = segmenter.family.preprocess(subjects.picture(*subjects.SIZE))[None]
    plain = None if way == "ours" else Plain(subjects.checkpoint(name), None if way == "plain" else way)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = resident()
    with torch.inference_mode():
        plain.embed(pixels) if plain else segmenter.family.embed(pixels)
    return peak() - before


if __name__ == "__main__":
    configure_process()
    print(added(*sys.argv[1:]))
