"""Which model answered: its URI, registered version, alias and run, from a real registry on SQLite."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import yaml
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring.runtime import is_starter, locate, open_model
from tests import pictures
from tests.conftest import ROOT, free_port, server
from tests.warm import python

BODY: dict[str, Any] = {
    "input_data": [
        {"image": pictures.to_text(pictures.to_bytes(Image.new("RGB", (40, 30)))), "input_points": [[[9, 9]]]}
    ],
    "params": {"mask_encoding": "rle"},
}


@dataclass
class Registry:
    """A registry with two versions of a model; the alias `champion` is at the first, `latest` is the second."""

    tracking: str
    runs: list[str]
    logged: str


@pytest.fixture(scope="module")
def registry(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    before, tracking = mlflow.get_tracking_uri(), f"sqlite:///{folder}/mlflow.db"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking}
    variables.pop("MLFLOW_EXPERIMENT_ID", None)
    for alias in ("champion", "challenger"):
        words = ["package", "--output", str(folder / "model"), "--register", "sam", "--alias", alias]
        done = subprocess.run(
            [python(), "-m", "sam_endpoint", *words], cwd=folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0 and f"models:/sam@{alias}" in done.stdout, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking)  # is set back in the end, unlike by MLflow
        mlflow.set_tracking_uri(tracking)
        versions = [mlflow.MlflowClient().get_model_version("sam", number) for number in "12"]
        (logged,) = mlflow.search_logged_models(
            ["0"], filter_string=f"source_run_id = '{versions[0].run_id}'", output_format="list"
        )
        yield Registry(tracking, [str(version.run_id) for version in versions], logged.model_id)
        mlflow.set_tracking_uri(before)


@pytest.mark.parametrize(
    ("source", "version", "alias", "run"),
    [
        ("models:/sam@champion", "1", "champion", 0),
        ("models:/sam@challenger", "2", "challenger", 1),
        ("models:/sam/1", "1", None, 0),
        ("models:/sam/latest", "2", None, 1),
    ],
)
def test_a_registered_model_has_its_version(
    registry: Registry, source: str, version: str, alias: str, run: int
) -> None:
    origin = open_model(source).describe()
    assert (origin["registered_model"], origin["version"], origin["alias"]) == ("sam", version, alias)
    assert (origin["source"], origin["run_id"], origin["family"]) == (source, registry.runs[run], "sam")


def test_models_of_runs_have_their_run(registry: Registry) -> None:
    for source in (f"runs:/{registry.runs[0]}/model", f"models:/{registry.logged}"):
        origin = open_model(source).describe()
        assert origin["run_id"] == registry.runs[0] and origin["source"] == source and "version" not in origin


def test_the_endpoint_tells_which_version_answers(registry: Registry, tmp_path: Path) -> None:
    port = free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", "models:/sam@champion"]
    environment = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": registry.tracking}
    with server(command, port, "/ready", tmp_path / "log", **environment) as url:
        (model,) = requests.get(f"{url}/models", timeout=10).json()
        assert model["origin"] == {
            "source": "models:/sam@champion",
            "family": "sam",
            "packaged_by": "0.2.0",
            "run_id": registry.runs[0],
            "base_model": "sam-tiny",
            "registered_model": "sam",
            "version": "1",
            "alias": "champion",
        }
        assert model["default"] is True and model["starter"] is True
        # The alias moves; the endpoint goes on with the version that it loaded, and says so.
        mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "2")
        try:
            invocation = {"dataframe_records": BODY["input_data"], "params": BODY["params"]}
            for path, body in (("/score", BODY), ("/invocations", invocation)):
                answer = requests.post(url + path, json=body, timeout=60)
                assert (answer.headers["x-answered-by"], answer.headers["x-model-version"]) == ("sam-tiny", "1")
            assert locate("models:/sam@champion").registered["version"] == "2"
        finally:
            mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "1")


def test_starters_are_known_by_their_weights(packaged: Path, sam_folder: Path, tmp_path: Path) -> None:
    """A folder of the same name with other weights is none; a copy under another name is one."""
    copy = shutil.copytree(package.EMBEDDED, tmp_path / "my-own")
    other = shutil.copytree(sam_folder, tmp_path / "sam-tiny")
    assert is_starter(package.EMBEDDED) and is_starter(package.EMBEDDED_SAM2) and is_starter(copy)
    assert open_model(packaged).is_starter and open_model(copy).is_starter
    assert not is_starter(other) and not open_model(other).is_starter
    assert not is_starter(tmp_path)


def test_a_catalog_tells_starters_before_they_are_loaded_and_names_that_are_no_header(
    sam_folder: Path, tmp_path: Path
) -> None:
    models = {
        "Modèle\n1": {"checkpoint": str(sam_folder)},
        "lazy": {"checkpoint": str(package.EMBEDDED)},
        "absent": {"model": "models:/nothing/1"},
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"default": "Modèle\n1", "models": models}))
    port = free_port()
    command = [
        python(),
        "-m",
        "sam_endpoint",
        "serve",
        "--port",
        str(port),
        "--catalog",
        str(tmp_path / "catalog.yaml"),
    ]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)) as url:
        listed = {model["name"]: model for model in requests.get(f"{url}/models", timeout=10).json()}
        assert {name: (model["starter"], model["warm"]) for name, model in listed.items()} == {
            "Modèle\n1": (False, True),
            "lazy": (True, False),
            "absent": (False, False),
        }
        answer = requests.post(f"{url}/score", json=BODY, timeout=60)
        assert answer.status_code == 200 and answer.headers["x-answered-by"] == "Mod_le_1"
        assert "x-model-version" not in answer.headers
