"""The log of a training: a CSV file with one row of metrics per line."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path


def append_row(path: Path, columns: Sequence[str], metrics: Mapping[str, float]) -> None:
    """Append the metrics of a step to a log. A new log begins with the names of its columns."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(columns)
        writer.writerow([f"{metrics[name]:.5g}" for name in columns])
