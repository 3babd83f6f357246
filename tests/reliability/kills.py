"""A batch job that is killed (SIGKILL) at random moments: `python -m tests.reliability.kills --kills 50`.

Started with the same arguments each time, in the end it must have written what an undisturbed job writes.
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
from tqdm import tqdm

from sam_endpoint.model.mlflow import package
from tests import pictures
from tests.conftest import ROOT


def table(folder: Path, rows: int) -> Path:
    """Rows of boxes on a dozen pictures, some of them broken, in no order."""
    chance = random.Random(0)
    for i in range(12):
        (folder / f"{i}.png").write_bytes(pictures.to_bytes(Image.fromarray(pictures.clutter(90, 120, i))))
    (folder / "12.png").write_bytes(b"no image")
    lines = [
        {"image": str(folder / f"{chance.randrange(13)}.png"), "input_boxes": f"[[{i % 40}, 5, {i % 40 + 50}, 60]]"}
        for i in range(rows)
    ]
    pd.DataFrame(lines).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def answers(output: Path) -> pa.Table:
    files = sorted(output.glob("*.parquet")) if output.is_dir() else [output]
    return pa.dataset.dataset(files).to_table()


def run(kills: int, rows: int, folder: Path, python: str = sys.executable) -> tuple[pa.Table, pa.Table, int, int]:
    """What an undisturbed job has written, what the killed one has, how often this was killed, and how many of these
    kills found it at work on its rows."""
    model = package.save(package.EMBEDDED, folder / "model")
    common = [python, "-m", "sam_endpoint", "score", "--model", str(model)]
    common += ["--input", str(table(folder, rows)), "--part-rows", "8"]
    began = time.monotonic()
    subprocess.run([*common, "--output", str(folder / "whole")], cwd=ROOT, check=True, capture_output=True)
    whole, chance = time.monotonic() - began, random.Random(1)
    killed, at_work = 0, 0
    with tqdm(total=kills, unit="kill", disable=None) as bar:
        while True:
            process = subprocess.Popen(
                [*common, "--output", str(folder / "killed")],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            before = parts(folder / "killed")
            try:
                _, said = process.communicate(timeout=whole * chance.random() * 1.2 if killed < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                killed += 1
                at_work += parts(folder / "killed") > before
                bar.update()
                continue
            assert process.returncode == 0, said.decode()[-2000:]
            if killed < kills:  # it came to its end between two kills: once more from the start
                subprocess.run(["rm", "-r", str(folder / "killed")], check=True)
                continue
            break
    return answers(folder / "whole"), answers(folder / "killed"), killed, at_work


def parts(output: Path) -> int:
    return len(list(output.glob("*.parquet"))) if output.is_dir() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=600)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, kills, at_work = run(chosen.kills, chosen.rows, Path(folder))
    same = json.dumps(whole.to_pylist(), default=str) == json.dumps(killed.to_pylist(), default=str)
    print(
        f"killed {kills} times, {at_work} of them after parts were written; {killed.num_rows} of {whole.num_rows} rows"
    )
    print("the output is that of an undisturbed job" if same else "THE OUTPUT DIFFERS")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
