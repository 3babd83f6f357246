"""The notebooks' twins for the command line: what they do here, and what they would have `az` do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.warm import python

# Notes what it is asked, and answers as far as the scripts look at answers.
AZ = """#!/usr/bin/env bash
echo "$*" >>"$AZ_LOG"
case "$*" in
  "ml online-endpoint invoke"*) python -c 'import json, sys; print(json.dumps(sys.stdin.read()))' <<<"$AZ_ANSWER" ;;
  "ml batch-endpoint invoke"*) echo job-1 ;;
  "ml compute show"*) exit 3 ;;
esac
"""
ANSWER = '[{"predictions": [{"mask_per_prediction": [{"encoded_binary_mask": "", "area": 7, "iou_score": 0.5}]}]}]'
STEPS = {
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
MADE = {"online": ["cup.png"], "batch": ["from-csv.parquet", "from-csv.png", "from-folder.parquet", "from-folder.png"]}


@pytest.fixture
def clone(packaged: Path, tmp_path: Path) -> Path:
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
def test_shell_twins(kind: str, on_azure: str, clone: Path, tmp_path: Path) -> None:
    log = tmp_path / "az.log"
    folders = [clone / "bin", Path(python()).parent, Path(sys.executable).parent, os.environ["PATH"]]
    path = os.pathsep.join(map(str, folders))
    more = {"RUN_ON_AZURE": on_azure, "RESOURCE_GROUP": "group", "WORKSPACE": "space", "HF_HUB_OFFLINE": "1"}
    more |= {"PYTHONPATH": str(ROOT), "PATH": path, "AZ_LOG": str(log), "AZ_ANSWER": ANSWER, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [str(clone / "notebooks" / f"mask-generation-{kind}-endpoint.sh")],
        cwd=tmp_path,
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    made = {file.name for file in (clone / "out").iterdir()}
    asked = log.read_text().splitlines() if log.exists() else []
    if on_azure == "false":
        assert made == set(MADE[kind]) and not asked
    else:
        assert made >= set(MADE[kind])
        assert [" ".join(line.split()[1:3]) for line in asked] == STEPS[kind]
        assert all(line.endswith("--resource-group group --workspace-name space") for line in asked)
        named = {word for line in asked for word in line.split() if word.startswith("segment-anything-")}
        assert len(named) == 1
        for word in (word for line in asked for word in line.split() if word.endswith(".yaml")):
            assert (ROOT / word).exists()
    assert {file.name for file in tmp_path.iterdir()} <= {"clone", "az.log"}  # scratch is gone
