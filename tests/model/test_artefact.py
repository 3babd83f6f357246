"""A packaged model works next to a user's modules of any name, and next to another version of the packaged model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import free_port, server

ANSWER_CODE = '"image_id": image_id, "error": None}'


@pytest.fixture(scope="module")
def other_version(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packaged model whose code has another name and returns other answers."""
    copy = shutil.copytree(packaged, tmp_path_factory.mktemp("other") / "model")
    (code,) = (copy / "code").iterdir()
    renamed = code.rename(code.with_name("sam_endpoint_model_0_1_9_feedc0ffee"))
    loader = copy / "loader.py"
    loader.write_text(loader.read_text().replace(code.name, renamed.name))
    scorer = renamed / "scorer.py"
    assert ANSWER_CODE in scorer.read_text()
    scorer.write_text(scorer.read_text().replace(ANSWER_CODE, ANSWER_CODE.replace("None", '"version 0.1.9"')))
    return copy


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """Return a folder with modules that have the names of this project's packages."""
    for name in ("model.py", "scoring.py", "evaluation.py", "loader.py"):
        (tmp_path / name).write_text(f"OWN = {name!r}\n")
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("OWN = 'training'\n")
    return tmp_path


def run_script(folder: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, in a new process from which this project cannot be imported."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "PYSPARK_PYTHON": sys.executable}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_a_model_loads_next_to_a_users_modules_of_the_same_names(packaged: Path, users_folder: Path) -> None:
    code = """
        import sys
        import mlflow
        import model, scoring, training
        loaded = mlflow.pyfunc.load_model(sys.argv[1])
        (prediction,) = loaded.predict(loaded.input_example)["predictions"][0]
        import evaluation, loader
        print(prediction["mask_per_prediction"][0]["area"] > 700)
        print(model.OWN, scoring.OWN, training.OWN, evaluation.OWN, loader.OWN)
        print("sam_endpoint" in sys.modules)
    """
    done = run_script(users_folder, code, packaged)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["True", "model.py scoring.py training evaluation.py loader.py", "False"]


def test_two_versions_in_one_process_run_their_own_code(
    packaged: Path, other_version: Path, users_folder: Path
) -> None:
    code = """
        import sys
        import mlflow
        models = [mlflow.pyfunc.load_model(path) for path in sys.argv[1:]]
        for model in (*models, *models):
            print(model.predict(model.input_example)["error"][0])
    """
    done = run_script(users_folder, code, packaged, other_version)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["None", "version 0.1.9"] * 2


def test_two_versions_in_one_spark_session_run_their_own_code(
    packaged: Path, other_version: Path, users_folder: Path
) -> None:
    code = """
        import sys
        import mlflow
        from pyspark.sql import SparkSession
        from pyspark.sql.functions import struct
        spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        rows = mlflow.pyfunc.load_model(sys.argv[1]).input_example.drop(columns=["input_points", "input_labels"])
        rows["multimask_output"] = "false"
        frame = spark.createDataFrame(rows)
        for path in sys.argv[1:]:
            udf = mlflow.pyfunc.spark_udf(spark, path, env_manager="local")
            (row,) = frame.select(udf(struct(*frame.columns)).alias("answer")).collect()
            print(row["answer"]["error"], row["answer"]["predictions"][0]["mask_per_prediction"][0]["size"])
    """
    done = run_script(users_folder, code, packaged, other_version)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["None [64, 96]", "version 0.1.9 [64, 96]"]


def test_mlflow_serves_a_model_from_a_folder_with_a_users_modules(other_version: Path, users_folder: Path) -> None:
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(other_version), "--env-manager", "local", "--port", str(port)]
    with server(command, port, "/ping", users_folder / "log", MLFLOW_MODELS_WORKERS="1") as url:
        body = (other_version / "serving_input_example.json").read_bytes()
        request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
        (row,) = json.load(urllib.request.urlopen(request, timeout=120))["predictions"]
    assert row["error"] == "version 0.1.9" and len(row["predictions"]) == 1
