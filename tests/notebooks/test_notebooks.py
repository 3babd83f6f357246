"""The stored content of the notebooks, and their cells for Azure. nbmake runs the other cells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run_with_clients

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AZURE_NOTEBOOKS = [path for path in NOTEBOOKS if path.name.startswith("mask-generation")]
MACHINE_DETAILS = re.compile(r"/(home|root|tmp|work|usr|Users)/|Traceback|Warning|127\.0\.0\.1| at 0x")


def notebook_name(path: Path) -> str:
    """Return the id of a notebook's test."""
    return path.stem


def code_cells(path: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=notebook_name)
def test_a_stored_notebook_is_executed_small_and_without_details_of_the_machine(path: Path) -> None:
    assert path.stat().st_size < 600_000
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] != "error" and output.get("name") != "stderr"
        shown = {"text/plain": output.get("text", ""), **output.get("data", {})}
        for kind, content in shown.items():
            assert kind in ("text/plain", "text/html", "image/jpeg")
            if kind == "image/jpeg":
                assert len(content) < 200_000  # base64 of 150 KB
            else:
                match = MACHINE_DETAILS.search("".join(content))
                assert match is None, f"{path.name}: {match and match[0]}"


@pytest.mark.parametrize("path", AZURE_NOTEBOOKS, ids=notebook_name)
def test_cells_for_azure_call_the_sdk_in_order_and_with_valid_arguments(path: Path, packaged: Path, tmp_path: Path) -> None:
    assert len(AZURE_NOTEBOOKS) == 2 and ["RUN_ON_AZURE = False"] in [cell["source"] for cell in code_cells(path)]
    report = run_with_clients(Path(__file__).with_name("azure_cells.py"), path, packaged, tmp_path)
    kind = "online" if "online" in path.name else "batch"
    steps = [
        f"{kind}_endpoints.begin_create_or_update",
        f"{kind}_deployments.begin_create_or_update",
        f"{kind}_endpoints.invoke",
        f"{kind}_endpoints.begin_delete",
    ]
    assert [report["calls"].index(step) for step in steps] == sorted(report["calls"].index(step) for step in steps)
    assert report["calls"][-1] == steps[-1]
    assert report["model"] == str(packaged) and report["endpoint"].startswith("segment-anything-")
