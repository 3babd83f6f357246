"""Alternating measurements, and the table and the plot of their results."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

DEFAULT_ATTENTION = "sdpa"  # fused attention, which `from_pretrained` chooses for the models of the cases
BASELINE = f"transformers, {DEFAULT_ATTENTION} (default)"
EAGER = "transformers, eager"  # attention as two matrix products and a softmax
ONNX_RUNTIME = "ONNX Runtime"
OPENVINO = "OpenVINO"
OURS = "this project"
SPEEDS = re.compile(r", (\d+) GFLOP/s in a matrix product, ([\d.]+) GiB/s in a copy$")  # the end of a `machine`
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
        differences: how far the results of an implementation are from those of the baseline, by the implementation's
            name: the largest absolute difference, divided by the largest absolute value of the baseline's results.
        missing: implementations that were not measured, because their packages are not installed.
        machine: the machine of the measurement, as `machine` describes it.
    """

    case: str
    subject: str
    values: dict[str, list[float]]
    unit: str = "s"
    floor: float | None = None
    note: str = ""
    differences: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    machine: str = ""

    def median(self, way: str) -> float:
        """Return the median of the values of an implementation."""
        return statistics.median(self.values[way])

    def ratios(self, way: str) -> list[float]:
        """Return `ratios_to` the baseline."""
        return self.ratios_to(next(iter(self.values)), way)

    def ratios_to(self, reference: str, way: str) -> list[float]:
        """Return how many times as good as the reference an implementation is, for each measurement.

        This is the reference's value divided by the value of the implementation, or the reverse for rates.
        """
        pairs = zip(self.values[reference], self.values[way], strict=True)
        if self.unit == RATE:
            return [value / other if other else math.inf for other, value in pairs]
        return [other / value for other, value in pairs]

    def fastest_other(self) -> str | None:
        """Return the implementation with the best median that is not this project's. None if there is none."""
        others = [way for way in self.values if not way.startswith(OURS)]
        return (max if self.unit == RATE else min)(others, key=self.median, default=None)

    def ours(self) -> list[str]:
        """Return the names of this project's implementations."""
        return [way for way in self.values if way.startswith(OURS)]


# Measures one checkpoint, given its name and the number of measurements.
Case = Callable[[str, int], Iterator[Result]]
# Cases by name, each with the checkpoints that it measures by default.
Cases = dict[str, tuple[Case, tuple[str, ...]]]


Ways = dict[str, Callable[[], Any]]  # functions to measure, by the name of the implementation


def compare(results: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return `Result.differences`.

    Args:
        results: the numbers that each implementation computes, by its name, the baseline first. All have one shape.
    """
    expected, *_ = results.values()
    scale = float(np.abs(expected).max())
    return {way: float(np.abs(values - expected).max()) / scale for way, values in list(results.items())[1:]}


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


@cache
def machine() -> str:
    """Describe the machine: processor, cores, vector instructions, torch version and both rates."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return (
        f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"torch {torch.__version__}, "
        f"{matrix_rate() / 1e9:.0f} GFLOP/s in a matrix product, {copy_rate() / 2**30:.1f} GiB/s in a copy"
    )


def _format_values(values: Sequence[float], unit: str) -> str:
    scale, name = (1000, "ms") if unit == "s" and statistics.median(values) < 10 else (1, unit)
    low, middle, high = (scale * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:,.3g} {name} ({low:,.3g} to {high:,.3g})" if middle < 1000 else f"{middle:,.0f} {name}"


def _format_share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def _format_ratios(ratios: Sequence[float]) -> str:
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def _compare_with_fastest(result: Result, way: str) -> str:
    """Describe how many times as fast as the fastest other implementation one of this project's is."""
    other = result.fastest_other()
    if other is None or way not in result.ours():
        return ""
    ratios = result.ratios_to(other, way)
    return f"{_format_ratios(ratios)}, {'ahead of' if statistics.median(ratios) >= 1 else 'BEHIND'} {other}"


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| case | model | implementation | median (range) | improvement over the first row (range) "
        "| against the fastest other (range) | largest difference | share of the lower bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for i, (way, values) in enumerate(result.values.items()):
            cells = [
                *((result.case, result.subject) if i == 0 else ("", "")),
                way,
                _format_values(values, result.unit),
                _format_ratios(result.ratios(way)) if i else "",
                _compare_with_fastest(result, way),
                f"{result.differences[way]:.0e}" if way in result.differences else "",
                _format_share(result.floor / result.median(way)) if result.floor else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines += [f"|  |  | {way} | not installed |  |  |  |  |" for way in result.missing]
    return "\n".join(lines)


def plot(results: Sequence[Result], file: Path) -> None:
    """Draw how many times as fast as the fastest other implementation this project is, on a logarithmic scale.

    Lines on the bars show the range. Results without another implementation are left out.

    Args:
        results: the results.
        file: the PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = [
        (
            f"{result.case}, {result.subject}{way.removeprefix(OURS)} (fastest other: {other})",
            result.ratios_to(other, way),
        )
        for result in results
        for way in result.ours()
        if (other := result.fastest_other())
    ]
    if not bars:
        return
    middles = np.array([statistics.median(ratios) for _, ratios in bars])
    spread = np.array([[min(ratios), max(ratios)] for _, ratios in bars]).T
    figure, axes = pyplot.subplots(figsize=(11, 1 + 0.32 * len(bars)), layout="constrained")
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
    axes.set_xlabel("times as fast as the fastest other implementation (1: equal)", loc="right")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, dpi=100, bbox_inches="tight")
    pyplot.close(figure)


def save(results: Sequence[Result], folder: Path) -> None:
    """Write `results.json`, `table.md` and `ratios.png`. New results replace those of the same case and model."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    earlier = json.loads(file.read_text()) if file.exists() else []
    merged = {(entry["case"], entry["subject"]): Result(**entry) for entry in earlier}
    merged.update({(result.case, result.subject): result for result in results})
    cases = list(dict.fromkeys(case for case, _ in merged))
    ordered = sorted(merged.values(), key=lambda result: cases.index(result.case))
    for result in results:
        result.machine = result.machine or machine()
    file.write_text(json.dumps([asdict(result) for result in ordered], indent=1) + "\n")
    groups: dict[str, list[Result]] = {}
    for result in ordered:
        groups.setdefault(SPEEDS.sub("", result.machine), []).append(result)
    parts = [f"{name}, {_speeds(group)}\n\n{table(group)}\n" for name, group in groups.items()]
    (folder / "table.md").write_text("\n".join(parts))
    plot(ordered, folder / "ratios.png")


def _speeds(results: Sequence[Result]) -> str:
    """Describe the rates of one machine, which are measured anew for each result."""
    rates = [SPEEDS.search(result.machine) for result in results]
    ranges = (sorted(float(rate[i]) for rate in rates if rate) for i in (1, 2))
    flops, copied = (" to ".join(dict.fromkeys(f"{rate:g}" for rate in (*own[:1], *own[-1:]))) for own in ranges)
    return f"{flops} GFLOP/s in a matrix product, {copied} GiB/s in a copy"
