"""The entry points of MLproject, and the files that share the pinned requirements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import yaml

from tests.conftest import ROOT, free_port, run_code, server
from tests.warm import python

MLFLOW = str(Path(sys.executable).parent / "mlflow")


def environment(tmp_path: Path) -> dict[str, str]:
    """Return variables for `mlflow run`: a Python that starts quickly, and a tracking store in the folder."""
    path = os.pathsep.join([str(Path(python()).parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db", "HF_HUB_OFFLINE": "1"}


def run_entry(entry: str, tmp_path: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    """Run an entry point of MLproject with parameters."""
    named = [item for name, value in parameters.items() for item in ("-P", f"{name}={value}")]
    command = [MLFLOW, "run", str(ROOT), "--env-manager", "local", "-e", entry, *named]
    # MLflow writes local artifacts into the working directory.
    return subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment(tmp_path)}, capture_output=True, text=True, timeout=400
    )


def test_entry_point_main_packages_a_model_and_score_scores_the_samples(tmp_path: Path) -> None:
    done = run_entry("main", tmp_path, output=tmp_path / "model")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "model" / "MLmodel").exists()
    done = run_entry("score", tmp_path, model=tmp_path / "model", output=tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr[-3000:]
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 6


def test_entry_point_serve_answers_a_ping(packaged: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [MLFLOW, "run", str(ROOT), "--env-manager", "local", "-e", "serve"]
    command += ["-P", f"model={packaged}", "-P", f"port={port}"]
    with server(command, port, "/ping", tmp_path / "log", **environment(tmp_path)):
        pass


def test_entry_point_train_writes_a_checkpoint(tmp_path: Path) -> None:
    done = run_entry("train", tmp_path, output=tmp_path / "sam", cache=tmp_path / "cache", steps=2, scenes=8)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "sam" / "config.json").read_text())["model_type"] == "sam"


def test_entry_point_evaluate_logs_metrics(packaged: Path, tmp_path: Path) -> None:
    done = run_entry("evaluate", tmp_path, model=packaged, count=1)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").search_runs(["0"])
    assert run.data.metrics["iou/all/things"] > 0 and run.data.params["data"] == "scenes"


def test_conda_and_the_lock_file_include_the_pinned_requirements() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": ["-r model/requirements.txt", "-e ."]}
    assert "-r model/requirements.txt" in (ROOT / "requirements.lock").read_text().splitlines()
    assert yaml.safe_load((ROOT / "MLproject").read_text())["conda_env"] == "conda.yaml"


def test_imports_do_not_freeze_objects_of_the_garbage_collector() -> None:
    code = (
        "import gc, sys; from sam_endpoint.scoring.process import configure_process; before = gc.get_freeze_count(); "
    )
    code += (
        "import sam_endpoint.model, sam_endpoint.scoring; assert gc.isenabled() and gc.get_freeze_count() == before; "
    )
    code += "configure_process(); assert gc.isenabled() and gc.get_freeze_count() > 100_000"
    assert run_code(code).returncode == 0
