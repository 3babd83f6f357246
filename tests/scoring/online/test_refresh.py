"""A registered model is replaced by its new version while requests go on, from a real registry on SQLite."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import requests
import torch

from sam_endpoint.model import families
from sam_endpoint.model.mlflow import package
from tests import pictures
from tests.conftest import serve_endpoint

CLIENTS = 3


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with two versions of a model that differ in their decoders; `champion` is the first."""
    folder = tmp_path_factory.mktemp("registry")
    before, uri = mlflow.get_tracking_uri(), f"sqlite:///{folder}/mlflow.db"
    family = families.load(str(package.EMBEDDED))
    with torch.no_grad():
        for weight in family.model.mask_decoder.iou_prediction_head.parameters():
            weight.mul_(0.5)
    families.save(family, folder / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        for checkpoint in (package.EMBEDDED, folder / "checkpoint"):
            package.log(package.save(checkpoint, folder / "model"), "sam")
        mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "1")
        yield uri
        mlflow.set_tracking_uri(before)


def metric(url: str, name: str) -> float:
    """Return a value of `/metrics` by its name and labels."""
    lines = requests.get(f"{url}/metrics", timeout=30).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])


def test_an_alias_that_moves_changes_the_model_without_a_failed_request(
    tracking: str, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    row = {"image": pictures.to_text(disc[0]), "input_points": [[[110, 80]]]}
    body: dict[str, Any] = {"input_data": [row], "params": {"mask_encoding": "rle"}}
    options = ["--model", "models:/sam@champion"]
    with serve_endpoint(tmp_path / "log", *options, MLFLOW_TRACKING_URI=tracking) as url:
        answers: list[list[tuple[str, str]]] = [[] for _ in range(CLIENTS)]
        over = threading.Event()

        def ask(mine: list[tuple[str, str]]) -> None:
            with requests.Session() as session:
                while not over.is_set():
                    response = session.post(f"{url}/score", json=body, timeout=60)
                    mine.append((response.headers.get("x-model-version", str(response.status_code)), response.text))

        threads = [threading.Thread(target=ask, args=(mine,)) for mine in answers]
        for thread in threads:
            thread.start()
        unchanged = requests.post(f"{url}/models/refresh", timeout=120).json()
        encoded = metric(url, 'sam_embedding_lookups_total{kept="no"}')
        mlflow.MlflowClient().set_registered_model_alias("sam", "champion", "2")
        replaced = requests.post(f"{url}/models/refresh", timeout=120).json()
        enough = [len(mine) + 3 for mine in answers]
        while any(len(mine) < count for mine, count in zip(answers, enough, strict=True)):
            over.wait(0.05)
        over.set()
        for thread in threads:
            thread.join()
        assert unchanged == {"replaced": []}
        assert [(model["before"], model["now"]) for model in replaced["replaced"]] == [("1", "2")]
        assert metric(url, 'sam_embedding_lookups_total{kept="no"}') == encoded == 1
    for mine in answers:
        versions = [version for version, _ in mine]
        assert versions == sorted(versions) and set(versions) == {"1", "2"}
    # Scores are rounded, because their last digits depend on the other prompts of the batch.
    scores = {(version, *(round(score, 3) for score in iou_scores(text))) for mine in answers for version, text in mine}
    assert len(scores) == 2, "each version has its own scores, and no response mixes both"


def iou_scores(text: str) -> list[float]:
    """Return the predicted IoU of the masks in the response to one row with one prompt."""
    (row,) = json.loads(text)
    return [mask["iou_score"] for mask in row["predictions"][0]["mask_per_prediction"]]
