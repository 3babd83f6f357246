"""Concepts at a running endpoint: by example with the embedded model, by text with a packaged detector."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
import yaml

from sam_endpoint.model.mlflow import package
from tests.coins import COINS, PICTURE, match
from tests.conftest import serve_endpoint
from tests.detectors import owl
from tests.scoring.online.endpoint import metric, post_bytes

EXAMPLE = [COINS[10].tolist()]
FAST = {"mask_encoding": "rle", "points_per_side": 16}


@pytest.fixture(scope="module")
def url(packaged: Path, sam_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with the embedded model and a model with a detector, and return its URL."""
    folder = tmp_path_factory.mktemp("endpoint")
    torch.manual_seed(0)
    owl(folder / "owl")
    package.save(sam_folder, folder / "texts", {"concept_thresh": 0.0}, detector=folder / "owl")
    models = {"coins": {"model": str(packaged)}, "texts": {"model": str(folder / "texts"), "warm": True}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "coins", "models": models}))
    with serve_endpoint(folder / "log", "--catalog", folder / "catalog.yaml", "--public-metrics", "true") as url:
        yield url


def score(url: str, *rows: dict[str, Any], path: str = "/score", **params: Any) -> tuple[int, Any]:
    key = "input_data" if path.startswith("/score") else "dataframe_records"
    body = json.dumps({key: list(rows), "params": {**FAST, **params}}).encode()
    status, answer = post_bytes(url + path, body)
    return status, answer["predictions"] if status == 200 and path == "/invocations" else answer


def coins() -> str:
    return base64.b64encode(PICTURE.read_bytes()).decode()


@pytest.mark.parametrize("path", ["/score", "/invocations"])
def test_examples_and_clicks_on_one_image_are_one_encoding(url: str, path: str) -> None:
    encodings = 'sam_stage_seconds_count{stage="encode"}'
    before = metric(url, encodings)
    image = coins() if path == "/score" else base64.b64encode(PICTURE.read_bytes() + b" ").decode()
    status, rows = score(
        url,
        {"image": image, "image_id": "tray", "input_points": [[268, 120]]},
        {"image_id": "tray", "input_points": [[40, 200]]},
        {"image_id": "tray", "input_exemplars": EXAMPLE},
        path=path,
    )
    assert status == 200, rows
    assert metric(url, encodings) - before == 1
    found = match([entry["mask_per_prediction"][0]["bbox"] for entry in rows[2]["predictions"]])
    assert len(found) == len(set(found)) >= 20 and None not in found
    assert {(entry["concept"], entry["concept_index"]) for entry in rows[2]["predictions"]} == {(None, 0)}


def test_five_texts_on_one_image_are_one_encoding(url: str) -> None:
    before = metric(url, 'sam_stage_seconds_count{stage="encode"}')
    texts = ["cup", "spoon", "plate", "fork", "knife"]
    image = base64.b64encode(PICTURE.read_bytes() + b"  ").decode()
    rows = [{"image": image, "input_text": texts}, {"image": image, "input_points": [[40, 200]]}]
    status, answer = score(url, *rows, path="/score?model=texts")
    assert status == 200, answer
    assert {entry["concept"] for entry in answer[0]["predictions"]} == {*texts}
    assert metric(url, 'sam_stage_seconds_count{stage="encode"}') - before == 1


def test_models_say_which_prompts_they_take(url: str) -> None:
    capabilities = {model["name"]: model["capabilities"] for model in requests.get(f"{url}/models", timeout=30).json()}
    assert capabilities["coins"] == {"points": True, "boxes": True, "text": False, "exemplars": True, "video": False}
    assert capabilities["texts"]["text"] is True


def test_a_text_to_a_model_without_text_is_a_400_that_names_a_packaging(url: str) -> None:
    status, body = score(url, {"image": coins(), "input_text": "coin"})
    assert status == 400
    assert "add --detector IDEA-Research/grounding-dino-tiny to `sam-endpoint package`" in json.dumps(body)
    status, rows = score(url, {"image": coins(), "input_text": "coin"}, on_error="record")
    assert status == 200 and rows[0]["predictions"] == [] and "--detector" in rows[0]["error"]
