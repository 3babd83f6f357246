"""Measure how much a fine-tuning improves the starter model: `python -m tests.training.finetune.gain --minutes 10`.

The program fine-tunes the model twice on images of coins that are pasted on parts of photographs. The first training
has the true masks. The second training has the masks of other images. A third of the coins and of the photographs is
held out. The first training must improve the mean IoU from one click by 0.05 and be promoted. The gate must refuse the
second training.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.training.finetune import coin_images

LEAST_GAIN = 0.05


def main() -> int:
    """Run both trainings and print their results. Return 0 if both results are as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="minutes to encode and train (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("build/finetune-gain"), help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=60, help="training images (default: %(default)s)")
    options = parser.parse_args()
    good = True
    for name, shuffled in (("true", False), ("shuffled", True)):
        folder = options.folder / name
        train, held_out = coin_images.write(folder / "data", options.images, options.images // 3, shuffled=shuffled)
        command = [sys.executable, "-m", "sam_endpoint", "finetune", "--model", ROOT / "checkpoints" / "sam-tiny"]
        command += ["--data", train, "--val", held_out, "--output", folder / "model", "--minutes", options.minutes]
        command += ["--register", f"coins-{name}", "--alias", "challenger", "--promote", "champion"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/runs.db"}
        print(f"{name} masks", flush=True)
        code = subprocess.run([str(word) for word in command], env=environment, cwd=ROOT).returncode
        report = json.loads((folder / "model.work" / "gate.json").read_text())
        gain = report["held-out"]["difference"]["1 click"]["mean"]
        print(f"{name} masks: {report['verdict']}, 1 click {gain:+.3f}, exit code {code}\n", flush=True)
        good &= (code == 0 and gain >= LEAST_GAIN) if not shuffled else (code == 3 and report["verdict"] == "worse")
    print("as expected" if good else "NOT as expected")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
