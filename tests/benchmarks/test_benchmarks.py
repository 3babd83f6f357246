"""`python -m benchmarks` runs cases and writes their results, a table and a chart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.measure import Result, table
from tests.conftest import ROOT
from tests.warm import python


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    command = [python(), "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_selected_cases_write_results_a_table_and_a_chart(tmp_path: Path) -> None:
    done = run("rle", "encode", "--on", "sam-tiny", "--turns", "2", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    results = {result["case"]: result for result in json.loads((tmp_path / "results.json").read_text())["results"]}
    assert list(results) == ["3 masks of 12 MP to RLE", "encode an image"]
    for result in results.values():
        assert result["subject"] == "sam-tiny"
        assert {len(values) for values in result["values"].values()} == {2}
        assert 0 < result["floor"] < min(result["values"]["transformers, eager"])
    ways = {case: list(result["values"]) for case, result in results.items()}
    assert ways["encode an image"] == ["transformers, eager", "transformers, sdpa", "this project"]
    assert float(results["encode an image"]["note"].split()[-1]) < 1e-3
    assert "GFLOP/s" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "ratios.png").stat().st_size > 5000


def test_an_unknown_case_fails_with_the_names_of_all_cases() -> None:
    done = run("decoding")
    assert done.returncode == 2 and "unknown case 'decoding'; the cases are encode, precision," in done.stderr


def test_the_table_shows_times_ratios_and_the_share_of_the_floor() -> None:
    result = Result("one", "a", {"theirs": [2.0, 4.0, 3.0], "ours": [1.0, 1.0, 2.0]}, floor=0.5)
    lines = table([result]).splitlines()
    assert lines[2] == "| one | a | theirs | 3,000 ms |  | 17% |"
    assert lines[3] == "|  |  | ours | 1,000 ms | **2.0** (1.5 to 4.0) | 50% |"
    assert result.ratios("ours") == pytest.approx([2, 4, 1.5])
    result.floor = 0.001
    assert table([result]).splitlines()[3].endswith("| under 1% |")
