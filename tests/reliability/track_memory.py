"""Measure the memory of `sam-endpoint track` for short and long videos.

python -m tests.reliability.track_memory --frames 100 10000: track a moving disc in videos of 100 and of 10,000 frames
with a small video model with random weights, each in a process of its own. Print the peak of the resident memory. The
exit code is 1 if the longest video needs more than LARGEST_GROWTH more memory than the shortest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import memory
from tests import checkpoints
from tests.conftest import ROOT
from tests.videos import write_video

HEIGHT, WIDTH, SIDE = 48, 64, 64
LARGEST_GROWTH = 0.05  # share of the memory of the shortest video


def draw(count: int) -> np.ndarray:
    """Draw a disc that moves back and forth, (count, HEIGHT, WIDTH, 3) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centres = 14 + np.abs((np.arange(count) // 4) % 72 - 36)
    inside = (x - centres[:, None, None]) ** 2 + (y - 24) ** 2 < 100
    return np.where(inside[..., None], np.array([230, 200, 60], np.uint8), np.array([40, 60, 90], np.uint8))


def measure(model: Path, count: int, folder: Path, direction: str = "forward") -> tuple[int, float]:
    """Track a video in a process of its own.

    Returns:
        The peak of the resident memory in bytes, and the time in seconds.
    """
    video = write_video(folder / f"{count}.mp4", draw(count))
    prompts, output = folder / "prompts.json", folder / f"{count}-{direction}.parquet"
    frame = count - 1 if direction == "backward" else 0
    centre = int(14 + abs((frame // 4) % 72 - 36))
    prompts.write_text(json.dumps([{"frame": frame, "object": 1, "points": [[centre, 24]]}]))
    command = ["track", "--video", video, "--prompts", prompts, "--output", output, "--model", model]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "sam_endpoint", *map(str, command), "--direction", direction],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    peak = 0
    while process.poll() is None:
        with suppress(OSError, StopIteration):  # the process has just ended
            peak = memory.peak(process.pid)
        time.sleep(0.05)
    assert process.returncode == 0, f"the command ended with status {process.returncode}"
    assert pq.read_metadata(output).num_rows == count
    return peak, time.monotonic() - started


def main() -> int:
    """Run the measurement, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--direction", choices=("forward", "backward"), default="forward")
    options = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = checkpoints.save_sam2_video(folder / "model", side=SIDE)
        for count in options.frames:
            peak, seconds = measure(model, count, folder, options.direction)
            peaks.append(peak)
            print(f"{count} frames: peak {peak / 1e6:.0f} MB, {seconds:.0f} s", flush=True)
    growth = peaks[-1] / peaks[0] - 1
    print(f"growth {growth:.1%}; the limit is {LARGEST_GROWTH:.0%}")
    return int(growth > LARGEST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
