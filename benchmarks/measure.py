"""Alternating measurements, and the table and the plot of their results."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

BASELINE = "transformers, eager"  # attention as two matrix products and a softmax
SDPA = "transformers, sdpa"  # fused attention, the default of `from_pretrained`
OURS = "this project"
RATE = "/s"  # unit of rates: a larger value is better


@dataclass
class Result:
    """One comparison.

    Attributes:
        case: what is measured.
        subject: name of the checkpoint.
        values: the measurements of each implementation by its name, the baseline first.
        unit: unit of the values, `s`, `MB`, or `/s` for rates.
        floor: lower bound of the seconds (`limits.lower_bound`), or None if it is unknown.
        note: a remark on the result.
    """

    case: str
    subject: str
    values: dict[str, list[float]]
    unit: str = "s"
    floor: float | None = None
    note: str = ""

    def median(self, way: str) -> float:
        """Return the median of the values of an implementation."""
        return statistics.median(self.values[way])

    def ratios(self, way: str) -> list[float]:
        """Return the improvement over the baseline, for each measurement.

        The improvement is the baseline's value divided by the value of the implementation, or the reverse for rates.
        """
        pairs = zip(self.values[next(iter(self.values))], self.values[way], strict=True)
        if self.unit == RATE:
            return [value / reference if reference else math.inf for reference, value in pairs]
        return [reference / value for reference, value in pairs]


# Measures one checkpoint, given its name and the number of measurements.
Case = Callable[[str, int], Iterator[Result]]
# Cases by name, each with the checkpoints that it measures by default.
Cases = dict[str, tuple[Case, tuple[str, ...]]]


def measure_alternately(ways: Mapping[str, Callable[[], Any]], turns: int, warm: bool = True) -> dict[str, list[float]]:
    """Measure functions alternately: A B A B ...

    Args:
        ways: the functions by name.
        turns: number of measured calls of each function.
        warm: whether to call each function once before the measurements.

    Returns:
        The seconds of each call, by the name of the function.
    """
    if warm:
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def matrix_rate() -> float:
    """Return the floating point operations per second of a large matrix product: the best of five measurements."""
    first, second = torch.randn(4096, 1024), torch.randn(1024, 4096)
    seconds = min(measure_alternately({"product": lambda: first @ second}, 5)["product"])
    return 2 * 4096 * 1024 * 4096 / seconds


def copy_rate() -> float:
    """Return the bytes per second that a copy of 256 MiB reads and writes: the best of five measurements."""
    source = torch.zeros(2**26)
    target = torch.zeros(2**26)
    return 2 * 2**28 / min(measure_alternately({"copy": lambda: target.copy_(source)}, 5)["copy"])


def machine() -> str:
    """Describe the machine: processor, cores, torch version and both rates."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return (
        f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{matrix_rate() / 1e9:.0f} GFLOP/s in a matrix product, {copy_rate() / 2**30:.1f} GiB/s in a copy"
    )


def _format_values(values: Sequence[float], unit: str) -> str:
    scale, name = (1000, "ms") if unit == "s" and statistics.median(values) < 10 else (1, unit)
    low, middle, high = (scale * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:,.3g} {name} ({low:,.3g} to {high:,.3g})" if middle < 1000 else f"{middle:,.0f} {name}"


def _format_share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| case | model | implementation | median (range) | improvement (range) | share of the lower bound |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        for i, (way, values) in enumerate(result.values.items()):
            ratios = result.ratios(way)
            times = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f})" if i else ""
            share = _format_share(result.floor / result.median(way)) if result.floor else ""
            case, subject = (result.case, result.subject) if i == 0 else ("", "")
            lines.append(f"| {case} | {subject} | {way} | {_format_values(values, result.unit)} | {times} | {share} |")
    return "\n".join(lines)


def plot(results: Sequence[Result], file: Path) -> None:
    """Draw the improvement of each implementation over its baseline, as bars on a logarithmic scale.

    Lines on the bars show the range. Results of a single implementation have no baseline and are left out.

    Args:
        results: the results.
        file: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{result.case}, {result.subject}" + (f", {way}" if len(result.values) > 2 else ""), result.ratios(way))
        for result in results
        for way in list(result.values)[1:]
    ]
    if not bars:
        return
    middles = np.array([statistics.median(ratios) for _, ratios in bars])
    spread = np.array([[min(ratios), max(ratios)] for _, ratios in bars]).T
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(bars)), layout="constrained")
    places = np.arange(len(bars))[::-1]
    error = np.abs(spread - middles)
    axes.barh(places, middles - 1, left=1, color="#0072b2", xerr=error, error_kw={"ecolor": "#555555"})
    for place, middle, high in zip(places, middles, spread[1], strict=True):
        axes.annotate(f"{middle:.3g}", (max(1, high), place), (6, 0), textcoords="offset points", va="center")
    axes.axvline(1, color="#d55e00")
    axes.set_xscale("log")
    axes.set_xticks(ticks := [1, 2, 5, 10, 20, 50, 100, 200], [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(min(0.6, spread.min()), 1.5 * spread.max())
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_yticks(places, [name for name, _ in bars])
    axes.set_xlabel("improvement over the baseline (1: equal)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def save(results: Sequence[Result], folder: Path) -> None:
    """Write `results.json`, `table.md` and `ratios.png`. New results replace those of the same case and model."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    earlier = json.loads(file.read_text())["results"] if file.exists() else []
    merged = {(entry["case"], entry["subject"]): Result(**entry) for entry in earlier}
    merged.update({(result.case, result.subject): result for result in results})
    cases = list(dict.fromkeys(case for case, _ in merged))
    ordered = sorted(merged.values(), key=lambda result: cases.index(result.case))
    report = {"machine": machine(), "results": [asdict(result) for result in ordered]}
    file.write_text(json.dumps(report, indent=1) + "\n")
    (folder / "table.md").write_text(f"{report['machine']}\n\n{table(ordered)}\n")
    plot(ordered, folder / "ratios.png")
