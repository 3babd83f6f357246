"""The notebooks as they lie here, to be read; nbmake runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AZURES = [path for path in NOTEBOOKS if path.name.startswith("mask-generation")]
OF_A_MACHINE = re.compile(r"/(home|root|tmp|work|usr|Users)/|Traceback|Warning|127\.0\.0\.1| at 0x")


def by_name(path: Path) -> str:
    return path.stem


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_a_notebook_is_kept_run_small_and_free_of_this_machine(path: Path) -> None:
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
                found = OF_A_MACHINE.search("".join(content))
                assert found is None, f"{path.name}: {found and found[0]}"


@pytest.mark.parametrize("path", AZURES, ids=by_name)
def test_cells_for_azure_say_what_its_sdk_understands(path: Path, packaged: Path, tmp_path: Path) -> None:
    assert len(AZURES) == 2 and ["RUN_ON_AZURE = False"] in [cell["source"] for cell in code_cells(path)]
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    command = [python, Path(__file__).with_name("azure_cells.py"), path, packaged, tmp_path]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    kind = "online" if "online" in path.name else "batch"
    steps = [
        f"{kind}_endpoints.begin_create_or_update",
        f"{kind}_deployments.begin_create_or_update",
        f"{kind}_endpoints.invoke",
        f"{kind}_endpoints.begin_delete",
    ]
    assert [found["calls"].index(step) for step in steps] == sorted(found["calls"].index(step) for step in steps)
    assert found["calls"][-1] == steps[-1]
    assert found["model"] == str(packaged) and found["endpoint"].startswith("segment-anything-")
