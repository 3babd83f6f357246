"""The shell scripts that do the same as the notebooks: their files, and their calls of Azure's `az`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.warm import python

# A replacement for `az` that logs its arguments and prints the outputs that the scripts read.
AZ = """#!/usr/bin/env bash
echo "$*" >>"$AZ_LOG"
case "$*" in
  "ml online-endpoint invoke"*) python -c 'import json, sys; print(json.dumps(sys.stdin.read()))' <<<"$AZ_ANSWER" ;;
  "ml batch-endpoint invoke"*) echo job-1 ;;
  "ml compute show"*) exit 3 ;;
esac
"""
ANSWER = '[{"predictions": [{"mask_per_prediction": [{"encoded_binary_mask": "", "area": 7, "iou_score": 0.5}]}]}]'
CALLS = {
    "online": ["online-endpoint create", "online-deployment create", "online-endpoint invoke", "online-endpoint delete"],
    "batch": [
        "compute show",
        "compute create",
        "batch-endpoint create",
        "batch-deployment create",
        "batch-endpoint invoke",
        "job stream",
        "job download",
        "batch-endpoint delete",
    ],
}
FILES = {
    "online": ["cup.png"],
    "batch": ["from-csv.parquet", "from-csv.png", "from-folder.parquet", "from-folder.png"],
}


@pytest.fixture
def clone(packaged: Path, tmp_path: Path) -> Path:
    """Return a folder like a clone of the project with a packaged model, and with `az` in its folder bin/."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("sam_endpoint", "model", "scoring", "samples", "deploy", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(packaged, folder / "build" / "model")
    (folder / "bin").mkdir()
    (folder / "bin" / "az").write_text(AZ)
    (folder / "bin" / "az").chmod(0o755)
    return folder


@pytest.mark.parametrize("on_azure", ["false", "true"])
@pytest.mark.parametrize("kind", ["online", "batch"])
def test_a_script_scores_here_and_calls_az_in_order_on_azure(kind: str, on_azure: str, clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "az.log"
    folders = [clone / "bin", Path(python()).parent, Path(sys.executable).parent, os.environ["PATH"]]
    path = os.pathsep.join(map(str, folders))
    environment = {"RUN_ON_AZURE": on_azure, "RESOURCE_GROUP": "group", "WORKSPACE": "space", "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(ROOT), "PATH": path, "TMPDIR": str(tmp_path)}
    environment |= {"AZ_LOG": str(log), "AZ_ANSWER": ANSWER}
    done = subprocess.run(
        [str(clone / "notebooks" / f"mask-generation-{kind}-endpoint.sh")],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    outputs = {file.name for file in (clone / "out").iterdir()}
    calls = log.read_text().splitlines() if log.exists() else []
    if on_azure == "false":
        assert outputs == set(FILES[kind]) and not calls
    else:
        assert outputs >= set(FILES[kind])
        assert [" ".join(line.split()[1:3]) for line in calls] == CALLS[kind]
        assert all(line.endswith("--resource-group group --workspace-name space") for line in calls)
        named = {word for line in calls for word in line.split() if word.startswith("segment-anything-")}
        assert len(named) == 1
        for word in (word for line in calls for word in line.split() if word.endswith(".yaml")):
            assert (ROOT / word).exists()
    assert {file.name for file in tmp_path.iterdir()} <= {"clone", "az.log"}  # temporary files are removed
