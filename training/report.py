"""The figures of an evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

Report = Mapping[str, Any]  # what JSON keeps of one model


def told(report: Report) -> str:
    """All tables of one model."""
    parts = [
        by_size("mean IoU", report["figures"]),
        by_size("boundary F", report["boundary"]),
        calibration(report["calibration"]),
        encodings(report["encodings"]),
    ]
    if "average precision" in report:
        parts.append(precision(report["average precision"]))
    return "\n\n".join(parts)


def by_size(title: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    """A figure a line, a group a column."""
    lines = [f"{title:18}" + "".join(f"{group:>9}" for group in figures)]
    for name in figures["all"]:
        cells = (f"{row[name]:9.0f}" if name == "things" else f"{row[name]:9.3f}" for row in figures.values())
        lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def calibration(figures: Report) -> str:
    """A bin of predicted scores a line."""
    lines = [f"{'predicted IoU':18}{'answers':>9}{'mean':>9}{'true IoU':>9}"]
    for one in figures["bins"]:
        span = f"{one['from']:.1f} to {one['to']:.1f}"
        lines.append(f"{span:18}{one['answers']:9d}{one['score']:9.3f}{one['iou']:9.3f}")
    lines.append(f"{'expected error':18}{figures['expected error']:9.3f}")
    lines.append(f"{'mean error':18}{figures['mean absolute error']:9.3f}")
    return "\n".join(lines)


def encodings(figures: list[dict[str, Any]]) -> str:
    """An encoding a line."""
    lines = [f"{'mask encoding':18}{'IoU kept':>9}{'least':>9}{'bytes':>9}"]
    lines += [f"{one['encoding']:18}{one['kept']:9.4f}{one['least']:9.4f}{one['characters']:9.0f}" for one in figures]
    return "\n".join(lines)


def precision(figures: Mapping[str, float | None]) -> str:
    """COCO's figures, one a line."""
    lines = [f"{'masks of boxes':18}{'COCO':>9}"]
    lines += [f"{name:18}" + ("        -" if value is None else f"{value:9.3f}") for name, value in figures.items()]
    return "\n".join(lines)


def compared(first: str, second: str, table: pd.DataFrame, scalars: Mapping[str, tuple[Any, Any]]) -> str:
    """A table of `figures.difference` with the two models' names over its columns, then figures without a spread."""
    heads = "".join(f"{name[-16:]:>18}" for name in (first, second))
    lines = [f"{'':26}{heads}{'difference':>12}{'+-':>8}"]
    for group, some in table.groupby("group", sort=False):
        lines += ["", f"{group} ({some['things'].iloc[0]} things)"]
        lines += [
            f"  {one.figure:24}{one.first:18.3f}{one.second:18.3f}{one.difference:+12.3f}{one.spread:8.3f}"
            for one in some.itertuples(index=False)
        ]
    lines += ["", "all things together"]
    lines += [
        f"  {name:24}{a:18.3f}{b:18.3f}{b - a:+12.3f}"
        for name, (a, b) in scalars.items()
        if a is not None and b is not None
    ]
    return "\n".join(lines)
