"""Kill a batch job with SIGKILL at random moments: `python -m tests.reliability.kills --kills 50`.

After each kill, the program starts the job again with the same arguments. In the end, the output of the job must equal
that of an undisturbed job.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring.batch.progress import Progress
from tests import pictures
from tests.conftest import ROOT


def write_table(folder: Path, rows: int) -> Path:
    """Write a table of boxes on twelve images and a broken file, in random order."""
    rng = random.Random(0)
    for i in range(12):
        (folder / f"{i}.png").write_bytes(pictures.to_bytes(Image.fromarray(pictures.clutter(90, 120, i))))
    (folder / "12.png").write_bytes(b"no image")
    table = [
        {"image": str(folder / f"{rng.randrange(13)}.png"), "input_boxes": f"[[{i % 40}, 5, {i % 40 + 50}, 60]]"}
        for i in range(rows)
    ]
    pd.DataFrame(table).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def read_output(output: Path) -> pa.Table:
    """Return the rows of a finished output."""
    files = sorted(output.glob("*.parquet")) if output.is_dir() else [output]
    return pa.dataset.dataset(files).to_table()


def run(kills: int, rows: int, folder: Path, python: str = sys.executable) -> tuple[pa.Table, pa.Table, int, int]:
    """Run an undisturbed job and a job that is killed.

    Args:
        kills: number of kills.
        rows: number of rows of the table.
        folder: folder for the model, the table and the outputs.
        python: Python executable of the jobs.

    Returns:
        The output of the undisturbed job, the output of the killed job, the number of kills, and the number of kills
        after which the job had written new parts.
    """
    model = package.save(package.EMBEDDED, folder / "model")
    command = [python, "-m", "sam_endpoint", "score", "--model", str(model)]
    command += ["--input", str(write_table(folder, rows)), "--part-rows", "8"]
    start = time.monotonic()
    subprocess.run([*command, "--output", str(folder / "whole")], cwd=ROOT, check=True, capture_output=True)
    duration, rng = time.monotonic() - start, random.Random(1)
    kill_count, productive_kills = 0, 0
    with Progress("killing", "kill", kills) as progress:
        while True:
            process = subprocess.Popen(
                [*command, "--output", str(folder / "killed")],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            before = count_parts(folder / "killed")
            try:
                _, output = process.communicate(timeout=duration * rng.random() * 1.2 if kill_count < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kill_count += 1
                productive_kills += count_parts(folder / "killed") > before
                progress.add()
                continue
            assert process.returncode == 0, output.decode()[-2000:]
            if kill_count < kills:  # the job has finished too early: start again without its output
                subprocess.run(["rm", "-r", str(folder / "killed")], check=True)
                continue
            break
    return read_output(folder / "whole"), read_output(folder / "killed"), kill_count, productive_kills


def count_parts(output: Path) -> int:
    """Return the number of finished parts in an output."""
    return len(list(output.glob("*.parquet"))) if output.is_dir() else 0


def main() -> int:
    """Run the program, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, kills, productive_kills = run(options.kills, options.rows, Path(folder))
    same = json.dumps(whole.to_pylist(), default=str) == json.dumps(killed.to_pylist(), default=str)
    rows = f"{killed.num_rows} of {whole.num_rows} rows"
    print(f"killed {kills} times, {productive_kills} of them after parts were written; {rows}")
    print("the output is that of an undisturbed job" if same else "THE OUTPUT DIFFERS")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
