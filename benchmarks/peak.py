"""Print by how many megabytes the memory of a process grows while it encodes an image.

Usage: python -m benchmarks.peak NAME plain|eager|ours
"""

from __future__ import annotations

import sys

from benchmarks import memory
from sam_endpoint.scoring.process import configure_process


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
    memory.reset_peak()
    before = memory.resident()
    with torch.inference_mode():
        plain.embed(pixels) if plain else segmenter.family.embed(pixels)
    return (memory.peak() - before) / 1e6


if __name__ == "__main__":
    configure_process()
    print(added(*sys.argv[1:]))
