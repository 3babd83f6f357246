"""Functions that run batch commands, write their tables and read their outputs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sam_endpoint import commands
from sam_endpoint.__main__ import main
from tests import pictures
from tests.conftest import run_here


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of `sam-endpoint` in this process: the one that the first argument names, or else `score`."""
    command = () if arguments[0] in commands.NAMES else ("score",)
    return run_here(main, *command, *arguments)


def table_of(photos: Path, rows: int) -> pd.DataFrame:
    """Return numbered rows, each with a box in a random image of a folder."""
    files = sorted(photos.rglob("*.png"))
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image": [str(files[i]) for i in rng.integers(0, len(files), rows)],
            "input_boxes": [json.dumps([10, 20 + i % 50, 90, 120]) for i in range(rows)],
            "multimask_output": ["false"] * rows,
            "number": range(rows),
        }
    )


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished output, which is a file or a folder of parts."""
    files = [output] if output.is_file() else sorted(output.glob("part-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def same_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    """Compare rows, with a tolerance for scores."""
    return bool(pictures.tolerant(first) == pictures.tolerant(second))
