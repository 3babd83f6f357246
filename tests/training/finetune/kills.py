"""Kill a fine-tuning with SIGKILL at random moments: `python -m tests.training.finetune.kills --kills 10`.

After each kill, the program starts the fine-tuning again with the same arguments. In the end, the weights must equal
those of an undisturbed fine-tuning.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.training.finetune import coin_images

# This program saves a state after every step. It ends before the gate. Otherwise most kills would happen in the gate,
# which takes most of the time.
CODE = """
import sys
from pathlib import Path
import torch
from sam_endpoint.scoring.runtime import open_model
from sam_endpoint.training.finetune import data, finetune, trainer
from sam_endpoint.training.finetune.options import FinetuneOptions, Plan

torch.set_num_threads(1)
trainer.SAVE_SECONDS = trainer.SAVE_SHARE = 0
model, train, output, steps = sys.argv[1:]
plan = Plan(steps=int(steps), images=2, masks=2, validate_every=3, patience=100)
options = FinetuneOptions(model, train, output=Path(output), plan=plan)
base = open_model(model)
training = finetune._train(options, base, data.prepare(options))
print("encoded", training.finetuner.source.encoded)
weights = b"".join(weight.detach().numpy().tobytes() for weight in training.finetuner.weights.values())
Path(output).with_suffix(".weights").write_bytes(weights)
"""


def run(model: Path, folder: Path, steps: int, kills: int, python: str = sys.executable) -> tuple[str, str, int]:
    """Run a training without kills, and a training with kills.

    Returns:
        The hash of the weights of each training, and the number of times that the second training was resumed.
    """
    train, _ = coin_images.write(folder / "data", 4, 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(name: str) -> subprocess.Popen[str]:
        words: Sequence[str] = [python, "-c", CODE, str(model), str(train), str(folder / name), str(steps)]
        return subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    began = time.monotonic()
    whole = start("whole")
    text, _ = whole.communicate()
    assert whole.returncode == 0, text
    seconds, chance, killed, resumed = time.monotonic() - began, random.Random(1), 0, 0
    while True:
        process = start("killed")
        if killed < kills:
            # The first kill comes at a random moment, which is mostly before the first step. Every further kill comes
            # soon after the training has saved a state.
            before, ends = saved_at(folder), time.monotonic() + seconds * chance.uniform(0.3, 0.9)
            while process.poll() is None and (saved_at(folder) == before if killed else time.monotonic() < ends):
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.05) * seconds if killed else 0)
            process.send_signal(signal.SIGKILL)
            killed += 1
        text, _ = process.communicate()
        resumed += "resumed" in (text or "")
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
    first, second = (
        hashlib.sha256((folder / f"{name}.weights").read_bytes()).hexdigest() for name in ("whole", "killed")
    )
    return first, second, resumed


def saved_at(folder: Path) -> int:
    """Return the time in nanoseconds at which the killed training saved its last state, or 0 if there is no state."""
    times = []
    for file in (folder / "killed.work").glob("*.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append(file.stat().st_mtime_ns)
    return max(times, default=0)


def main() -> int:
    """Run the measurement, and return 0 if the weights are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="(default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = ROOT / "checkpoints" / "sam-tiny"
        first, second, resumed = run(model, Path(folder), options.steps, options.kills)
    print(f"{options.kills} kills, resumed {resumed} times: {'the same' if first == second else 'OTHER'} weights")
    return int(first != second)


if __name__ == "__main__":
    sys.exit(main())
