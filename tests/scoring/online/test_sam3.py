"""SAM 3 at a running endpoint: texts, examples and clicks on one image."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from PIL import Image

from sam_endpoint.model.mlflow import package
from tests import checkpoints, pictures
from tests.conftest import serve_endpoint
from tests.scoring.online.endpoint import metric, post_bytes

TEXTS = ["cups", "spoon", "table", "order", "a spotted dog"]
ENCODINGS = 'sam_stage_seconds_count{stage="encode"}'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with a SAM 3, and with a SAM 3 that has no tracker, and return its URL."""
    folder = tmp_path_factory.mktemp("endpoint")
    models = {}
    for name in ("sam3_video", "sam3"):
        package.save(checkpoints.SAVERS[name](folder / f"{name}-weights"), folder / name, {"concept_thresh": 0.0})
        models[name] = {"model": str(folder / name), "warm": True}
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "sam3_video", "models": models}))
    with serve_endpoint(folder / "log", "--catalog", folder / "catalog.yaml", "--public-metrics", "true") as url:
        yield url


def score(url: str, rows: list[dict[str, Any]], model: str = "sam3_video") -> tuple[int, Any]:
    """Score rows, and return the status and the response."""
    body = json.dumps({"input_data": rows, "params": {"mask_encoding": "rle"}}).encode()
    return post_bytes(f"{url}/score?model={model}", body)


def picture(seed: int) -> str:
    """Return a PNG image as base64."""
    return base64.b64encode(pictures.to_bytes(Image.fromarray(pictures.clutter(61, 87, seed=seed)))).decode()


def test_five_texts_an_example_and_two_clicks_are_one_encoding(url: str) -> None:
    before = metric(url, ENCODINGS)
    status, first = score(url, [{"image": picture(1), "image_id": "tray", "input_text": TEXTS}])
    assert status == 200, first
    rows: list[dict[str, Any]] = [
        {"image_id": "tray", "input_points": [[30, 20]]},
        {"image_id": "tray", "input_points": [[60, 40]]},
        {"image_id": "tray", "input_text": "cups", "input_exemplars": [[10, 5, 70, 52]]},
    ]
    status, second = score(url, rows)
    assert status == 200, second
    assert metric(url, ENCODINGS) - before == 1
    assert [entry["concept"] for entry in first[0]["predictions"]] == [text for text in TEXTS for _ in range(20)]
    assert [len(answer["predictions"]) for answer in second] == [1, 1, 20]


def test_a_text_of_too_many_tokens_gets_400(url: str) -> None:
    status, answer = score(url, [{"image": picture(2), "input_text": "z" * 40}])
    assert status == 400
    assert "expected a text of at most 32 tokens (a noun phrase of up to about 20 words), got 42 tokens" in str(answer)


def test_a_model_without_a_tracker_takes_texts_and_names_one_that_takes_points(url: str) -> None:
    status, answer = score(url, [{"image": picture(3), "input_text": "cups"}], "sam3")
    assert status == 200 and len(answer[0]["predictions"]) == 20
    for prompt in ({"input_points": [[30, 20]]}, {"input_boxes": [[10, 5, 70, 52]]}, {}):
        status, answer = score(url, [{"image": picture(3), **prompt}], "sam3")
        assert status == 400 and "facebook/sam3" in str(answer), answer
