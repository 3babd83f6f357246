"""`python -m benchmarks` runs cases and writes their results, a table and a chart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import measure, subjects
from benchmarks.measure import Result, table
from benchmarks.plain import Plain
from tests.conftest import ROOT
from tests.warm import python


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    command = [python(), "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_selected_cases_write_results_a_table_and_a_chart(tmp_path: Path) -> None:
    done = run("rle", "encode", "--on", "sam-tiny", "--turns", "2", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    results = {result["case"]: result for result in json.loads((tmp_path / "results.json").read_text())}
    assert list(results) == ["3 masks of 12 MP to RLE", "encode an image"]
    for result in results.values():
        assert result["subject"] == "sam-tiny"
        assert {len(values) for values in result["values"].values()} == {2}
        assert result["floor"] > 0  # on a busy machine, it can exceed the fastest measurement
        assert "GFLOP/s" in result["machine"]
    encode = results["encode an image"]
    always = {"transformers, sdpa (default)", "transformers, eager", "this project"}
    assert {*encode["values"], *encode["missing"]} == {*always, "ONNX Runtime", "OpenVINO"}
    assert always <= encode["values"].keys()
    assert encode["differences"]["this project"] < 1e-5
    table = (tmp_path / "table.md").read_text()
    assert "GFLOP/s" in table
    for runtime in encode["missing"]:
        assert f"|  |  | {runtime} | not installed |" in table
    assert (tmp_path / "ratios.png").stat().st_size > 5000


def test_the_baseline_is_the_attention_that_transformers_chooses() -> None:
    plain = Plain(subjects.checkpoint("sam-tiny"))
    assert f"transformers, {plain.attention} (default)" == measure.BASELINE


def test_an_unknown_case_fails_with_the_names_of_all_cases() -> None:
    done = run("decoding")
    assert done.returncode == 2 and "unknown case 'decoding'; the cases are encode, precision," in done.stderr


def test_the_table_compares_this_project_with_the_fastest_other_implementation() -> None:
    values = {"theirs": [2.0, 4.0, 3.0], "faster": [1.0, 2.0, 2.0], "this project": [0.5, 1.0, 2.0]}
    result = Result("one", "a", values, floor=0.5, differences={"this project": 2.3e-7}, missing=["OpenVINO"])
    lines = table([result]).splitlines()
    assert lines[2] == "| one | a | theirs | 3,000 ms |  |  |  | 17% |"
    assert lines[3] == "|  |  | faster | 2,000 ms | **2.00** (1.50 to 2.00) |  |  | 25% |"
    ahead = "**2.00** (1.00 to 2.00), ahead of faster"
    assert lines[4] == f"|  |  | this project | 1,000 ms | **4.00** (1.50 to 4.00) | {ahead} | 2e-07 | 50% |"
    assert lines[5].startswith("|  |  | OpenVINO | not installed |")
    assert result.ratios("faster") == pytest.approx([2, 2, 1.5])
    result.values["this project"] = [2.0, 3.0, 4.0]
    assert "**0.50** (0.50 to 0.67), BEHIND faster" in table([result])
    result.floor = 0.001
    assert table([result]).splitlines()[3].endswith("| under 1% |")
