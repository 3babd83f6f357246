"""Format the metrics of an evaluation as text tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

Report = Mapping[str, Any]  # the report of one model, as in the JSON file


def format_report(report: Report) -> str:
    """Format all tables of one model."""
    tables = [
        format_by_size("mean IoU", report["figures"]),
        format_by_size("boundary F", report["boundary"]),
        format_calibration(report["calibration"]),
        format_encodings(report["encodings"]),
    ]
    if "average precision" in report:
        tables.append(format_average_precision(report["average precision"]))
    return "\n\n".join(tables)


def format_by_size(title: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    """Format a table with a line for each metric and a column for each size.

    Args:
        title: The title in the first line.
        figures: The metrics by size.

    Example:
        >>> print(format_by_size("mean IoU", {"all": {"things": 2, "box": 0.91}}))
        mean IoU                all
        things                    2
        box                   0.910
    """
    lines = [f"{title:18}" + "".join(f"{size:>9}" for size in figures)]
    for name in figures["all"]:
        cells = (f"{row[name]:9.0f}" if name == "things" else f"{row[name]:9.3f}" for row in figures.values())
        lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def format_calibration(calibration: Report) -> str:
    """Format a table with a line for each bin of predicted scores."""
    lines = [f"{'predicted IoU':18}{'answers':>9}{'mean':>9}{'true IoU':>9}"]
    for row in calibration["bins"]:
        limits = f"{row['from']:.1f} to {row['to']:.1f}"
        lines.append(f"{limits:18}{row['answers']:9d}{row['score']:9.3f}{row['iou']:9.3f}")
    lines.append(f"{'expected error':18}{calibration['expected error']:9.3f}")
    lines.append(f"{'mean error':18}{calibration['mean absolute error']:9.3f}")
    return "\n".join(lines)


def format_encodings(encodings: list[dict[str, Any]]) -> str:
    """Format a table with a line for each mask encoding."""
    lines = [f"{'mask encoding':18}{'IoU kept':>9}{'least':>9}{'bytes':>9}"]
    lines += [f"{row['encoding']:18}{row['kept']:9.4f}{row['least']:9.4f}{row['characters']:9.0f}" for row in encodings]
    return "\n".join(lines)


def format_average_precision(metrics: Mapping[str, float | None]) -> str:
    """Format a table with a line for each of COCO's metrics."""
    lines = [f"{'masks of boxes':18}{'COCO':>9}"]
    lines += [f"{name:18}" + ("        -" if value is None else f"{value:9.3f}") for name, value in metrics.items()]
    return "\n".join(lines)


def format_comparison(
    first: str, second: str, differences: pd.DataFrame, scalars: Mapping[str, tuple[Any, Any]]
) -> str:
    """Format the metrics of two models side by side.

    Args:
        first: The name of the first model.
        second: The name of the second model.
        differences: The table from `metrics.difference_table`.
        scalars: The pairs from `metrics.scalar_pairs`.
    """
    heads = "".join(f"{name[-16:]:>18}" for name in (first, second))
    lines = [f"{'':26}{heads}{'difference':>12}{'+-':>8}"]
    for size, group in differences.groupby("group", sort=False):
        lines += ["", f"{size} ({group['things'].iloc[0]} things)"]
        lines += [
            f"  {row.figure:24}{row.first:18.3f}{row.second:18.3f}{row.difference:+12.3f}{row.spread:8.3f}"
            for row in group.itertuples(index=False)
        ]
    lines += ["", "all things together"]
    lines += [
        f"  {name:24}{a:18.3f}{b:18.3f}{b - a:+12.3f}"
        for name, (a, b) in scalars.items()
        if a is not None and b is not None
    ]
    return "\n".join(lines)
