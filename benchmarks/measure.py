"""Times taken in turn, their limits, and tables and plots of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

BASELINE = "transformers"


@dataclass
class Result:
    """One comparison: `values` a way by its name (the baseline first), each taken in turn with the others.

    unit: of the values, `s` or `MB`; floor: the seconds that the machine needs at least (`limits.least`); note: how to
    read it.
    """

    case: str
    subject: str
    values: dict[str, list[float]]
    unit: str = "s"
    floor: float | None = None
    note: str = ""

    def median(self, way: str) -> float:
        return statistics.median(self.values[way])

    def ratios(self, way: str) -> list[float]:
        """How many times less than the baseline, turn by turn."""
        baseline = self.values[next(iter(self.values))]
        return [one / other for one, other in zip(baseline, self.values[way], strict=True)]


def in_turn(ways: Mapping[str, Callable[[], Any]], turns: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds that each way takes, A B A B ..., after once each for nothing."""
    if warm:
        for way in ways.values():
            way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - began)
    return taken


def matrix_rate() -> float:
    """Floating point operations a second of a plain large matrix product, now: the best of five."""
    one, other = torch.randn(4096, 1024), torch.randn(1024, 4096)
    best = min(in_turn({"product": lambda: one @ other}, 5)["product"])
    return 2 * 4096 * 1024 * 4096 / best


def copy_rate() -> float:
    """Bytes a second that a copy of 256 MiB reads and writes, now: the best of five."""
    one = torch.zeros(2**26)
    other = torch.zeros(2**26)
    return 2 * 2**28 / min(in_turn({"copy": lambda: other.copy_(one)}, 5)["copy"])


def machine() -> str:
    """What this was measured on, for the table."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return (
        f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{matrix_rate() / 1e9:.0f} GFLOP/s in a matrix product, {copy_rate() / 2**30:.1f} GiB/s in a copy"
    )


def _shown(values: Sequence[float], unit: str) -> str:
    scale, name = (1000, "ms") if unit == "s" and statistics.median(values) < 10 else (1, unit)
    low, middle, high = (scale * one for one in (min(values), statistics.median(values), max(values)))
    return f"{middle:,.3g} {name} ({low:,.3g} to {high:,.3g})" if middle < 1000 else f"{middle:,.0f} {name}"


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    lines = ["| case | on | way | median (spread) | times less | of the limit |", "|---|---|---|---|---|---|"]
    for result in results:
        for i, (way, values) in enumerate(result.values.items()):
            ratios = result.ratios(way)
            times = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f})" if i else ""
            share = _share(result.floor / result.median(way)) if result.floor else ""
            where = (result.case, result.subject) if i == 0 else ("", "")
            lines.append(f"| {where[0]} | {where[1]} | {way} | {_shown(values, result.unit)} | {times} | {share} |")
    return "\n".join(lines)


def plot(results: Sequence[Result], file: Path) -> None:
    """How many times less each way takes than its baseline, as bars with their spread, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{one.case}, {one.subject}" + (f", {way}" if len(one.values) > 2 else ""), one.ratios(way))
        for one in results
        for way in list(one.values)[1:]
    ]
    middles = np.array([statistics.median(ratios) for _, ratios in bars])
    spread = np.array([[min(ratios), max(ratios)] for _, ratios in bars]).T
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(bars)), layout="constrained")
    places = np.arange(len(bars))[::-1]
    error = np.abs(spread - middles)
    axes.barh(places, middles - 1, left=1, color="#0072b2", xerr=error, error_kw={"ecolor": "#555555"})
    for place, middle, most in zip(places, middles, spread[1], strict=True):
        axes.annotate(f"{middle:.3g}", (max(1, most), place), (6, 0), textcoords="offset points", va="center")
    axes.axvline(1, color="#d55e00")
    axes.set_xscale("log")
    axes.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100, 200], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(min(0.6, spread.min()), 1.5 * spread.max())
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_yticks(places, [name for name, _ in bars])
    axes.set_xlabel("times less than the baseline (at the line: the same)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def save(results: Sequence[Result], folder: Path) -> None:
    """Writes `results.json`, `table.md` and `ratios.png`; results of the same case and subject are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    before = json.loads(file.read_text())["results"] if file.exists() else []
    kept = {(one["case"], one["subject"]): Result(**one) for one in before}
    kept.update({(one.case, one.subject): one for one in results})
    cases = list(dict.fromkeys(case for case, _ in kept))
    everything = sorted(kept.values(), key=lambda one: cases.index(one.case))
    described = {"machine": machine(), "results": [asdict(one) for one in everything]}
    file.write_text(json.dumps(described, indent=1) + "\n")
    (folder / "table.md").write_text(f"{described['machine']}\n\n{table(everything)}\n")
    plot(everything, folder / "ratios.png")
