"""The origin of a model: its URI, registered version, alias and run, from a real registry on SQLite."""

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
from tests.conftest import ROOT, serve_endpoint
from tests.warm import python

BODY: dict[str, Any] = {
    "input_data": [
        {"image": pictures.to_text(pictures.to_bytes(Image.new("RGB", (40, 30)))), "input_points": [[[9, 9]]]}
    ],
    "params": {"mask_encoding": "rle"},
}


@dataclass
class Registry:
    """A registry with two versions of a model.

    The alias `champion` is version 1. `challenger` and `latest` are version 2.

    Attributes:
        tracking: URI of the tracking store.
        runs: run ids of the two versions.
        logged: id of the logged model of the first version.
    """

    tracking: str
    runs: list[str]
    logged: str


@pytest.fixture(scope="module")
def registry(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Package and register two versions of a model."""
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
        patch.setenv("MLFLOW_TRACKING_URI", tracking)  # MLflow sets this variable too, but never restores it
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
def test_the_origin_of_a_registered_model_has_version_alias_and_run(
    registry: Registry, source: str, version: str, alias: str, run: int
) -> None:
    origin = open_model(source).describe()
    assert (origin["registered_model"], origin["version"], origin["alias"]) == ("sam", version, alias)
    assert (origin["source"], origin["run_id"], origin["family"]) == (source, registry.runs[run], "sam")


def test_the_origin_of_a_model_of_a_run_has_the_run(registry: Registry) -> None:
    for source in (f"runs:/{registry.runs[0]}/model", f"models:/{registry.logged}"):
        origin = open_model(source).describe()
        assert origin["run_id"] == registry.runs[0] and origin["source"] == source and "version" not in origin


def test_the_endpoint_reports_the_version_that_it_has_loaded(registry: Registry, tmp_path: Path) -> None:
    options = ["--model", "models:/sam@champion"]
    with serve_endpoint(tmp_path / "log", *options, MLFLOW_TRACKING_URI=registry.tracking) as url:
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
        # After the alias has moved, the endpoint still uses and reports the version that it has loaded.
        mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "2")
        try:
            invocation = {"dataframe_records": BODY["input_data"], "params": BODY["params"]}
            for path, body in (("/score", BODY), ("/invocations", invocation)):
                answer = requests.post(url + path, json=body, timeout=60)
                assert (answer.headers["x-answered-by"], answer.headers["x-model-version"]) == ("sam-tiny", "1")
            assert locate("models:/sam@champion").registered["version"] == "2"
        finally:
            mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "1")


def test_recognises_starter_models_by_their_weights(packaged: Path, sam_folder: Path, tmp_path: Path) -> None:
    """A folder with the name of a starter and other weights is not a starter. A renamed copy is one."""
    copy = shutil.copytree(package.EMBEDDED, tmp_path / "my-own")
    other_weights = shutil.copytree(sam_folder, tmp_path / "sam-tiny")
    assert is_starter(package.EMBEDDED) and is_starter(package.EMBEDDED_SAM2) and is_starter(copy)
    assert open_model(packaged).is_starter and open_model(copy).is_starter
    assert not is_starter(other_weights) and not open_model(other_weights).is_starter
    assert not is_starter(tmp_path)


def test_models_lists_starters_before_they_are_loaded_and_headers_escape_names(
    sam_folder: Path, tmp_path: Path
) -> None:
    models = {
        "Modèle\n1": {"checkpoint": str(sam_folder)},
        "lazy": {"checkpoint": str(package.EMBEDDED)},
        "absent": {"model": "models:/nothing/1"},
    }
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump({"default": "Modèle\n1", "models": models}))
    with serve_endpoint(tmp_path / "log", "--catalog", tmp_path / "catalog.yaml") as url:
        listed = {model["name"]: model for model in requests.get(f"{url}/models", timeout=10).json()}
        assert {name: (model["starter"], model["warm"]) for name, model in listed.items()} == {
            "Modèle\n1": (False, True),
            "lazy": (True, False),
            "absent": (False, False),
        }
        answer = requests.post(f"{url}/score", json=BODY, timeout=60)
        assert answer.status_code == 200 and answer.headers["x-answered-by"] == "Mod_le_1"
        assert "x-model-version" not in answer.headers
