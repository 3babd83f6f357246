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


def xanylabeling(url: str, model: str = "texts", **params: Any) -> Any:
    body: Any = {
        "model": model,
        "image": f"data:image/png;base64,{coins()}",
        "params": {"conf_threshold": 0.0, **params},
    }
    return requests.post(f"{url}/v1/predict", json=body, timeout=120).json()


def test_x_anylabeling_gets_the_objects_of_each_text_with_the_text_as_label(url: str) -> None:
    models = requests.get(f"{url}/v1/models", timeout=30).json()["data"]
    modes = {name: (model["capabilities"]["text"], model["batch_processing_mode"]) for name, model in models.items()}
    assert modes == {"coins": (False, "default"), "texts": (True, "text_prompt")}
    widgets = {widget["name"] for widget in models["texts"]["widgets"]}
    assert {"edit_text", "button_send", "edit_conf"} <= widgets
    data = xanylabeling(url, text_prompt="cup, spoon,cup")["data"]
    labels = [shape["label"] for shape in data["shapes"]]
    assert list(dict.fromkeys(labels)) == ["cup", "spoon"] and data["replace"] is False
    by_full_stop = xanylabeling(url, text_prompt="cup.spoon")["data"]
    assert by_full_stop["shapes"] == data["shapes"]
    scores = sorted({shape["score"] for shape in data["shapes"]})
    score = (scores[0] + scores[-1]) / 2
    best = xanylabeling(url, text_prompt="cup, spoon", conf_threshold=score)["data"]["shapes"]
    assert best and all(shape["score"] >= score for shape in best) and len(best) < len(labels)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"text_prompt": ","}, "column 'text_prompt': expected a text with at least one letter, digit or symbol"),
        (
            {"text_prompt": ",".join(map(str, range(200)))},
            "expected at most 16 texts in a row (send several rows), got 200",
        ),
        ({"text_prompt": "x" * 10_000}, "column 'text_prompt': expected a text of at most 200 characters"),
        (
            {"text_prompt": "cup", "marks": [{"type": "point", "data": [110, 80], "label": 1}]},
            "column 'text_prompt': expected either text_prompt or marks, got both",
        ),
    ],
)
def test_x_anylabeling_gets_errors_about_texts(url: str, params: dict[str, Any], message: str) -> None:
    answer = xanylabeling(url, **params)
    assert answer["success"] is False and message in answer["error"]["message"]


def test_azures_form_has_the_concepts(url: str) -> None:
    rows: list[dict[str, Any]] = [
        {"image": coins(), "input_text": ["cup", "spoon"]},
        {"image": coins(), "input_points": [[40, 200]]},
    ]
    plain = score(url, *rows, path="/score?model=texts")[1]
    status, answer = score(url, *rows, path="/score?model=texts", response_format="azureml")
    assert status == 200
    concepts, click = (
        (row["response"]["predictions"] for row in answer)
        if "response" in answer[0]
        else (row["predictions"] for row in answer)
    )
    assert [(entry["concept"], entry["concept_index"]) for entry in concepts] == [
        (entry["concept"], entry["concept_index"]) for entry in plain[0]["predictions"]
    ]
    assert set(concepts[0]) == {"masks_per_prediction", "concept", "concept_index"}
    assert set(click[0]) == {"masks_per_prediction"}


def test_open_inference_passes_concepts_through(url: str) -> None:
    def infer(model: str, **cells: Any) -> Any:
        inputs: list[dict[str, Any]] = [
            {
                "name": name,
                "datatype": "BYTES",
                "shape": [1, 1],
                "data": [value if name == "image" else json.dumps(value)],
            }
            for name, value in {"image": coins(), **cells}.items()
        ]
        inputs[0]["parameters"] = {"content_type": "base64"}
        body: Any = {"inputs": inputs, "parameters": FAST}
        answer = requests.post(f"{url}/v2/models/{model}/infer", json=body, timeout=120).json()
        return json.loads(answer["outputs"][0]["data"][0])

    texts = infer("texts", input_text=["cup", "spoon"])
    expected = score(url, {"image": coins(), "input_text": ["cup", "spoon"]}, path="/score?model=texts")[1]
    assert texts["predictions"] == expected[0]["predictions"]
    shown = infer("coins", input_exemplars=EXAMPLE, input_exemplar_labels=[1])
    found = match([entry["mask_per_prediction"][0]["bbox"] for entry in shown["predictions"]])
    assert len(found) == len(set(found)) >= 20 and None not in found


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "200 texts": ({"input_text": ["cup"] * 200}, "column 'input_text': expected at most 16 texts in a row"),
    "an empty text": (
        {"input_text": "  "},
        "column 'input_text': expected a text, or null for every object in the image",
    ),
    "an odd text": ({"input_text": "\u0301\u200d"}, "column 'input_text': expected a text with at least one letter"),
    "a long text": ({"input_text": "x" * 10_000}, "column 'input_text': expected a text of at most 200 characters"),
    "a control character": ({"input_text": "cup\0"}, "without control characters and unpaired surrogates"),
    "text and points": ({"input_text": "cup", "input_points": [[1, 1]]}, "column 'input_text'"),
    "a box outside": ({"input_exemplars": [[900, 900, 950, 950]]}, "column 'input_exemplars': expected boxes inside"),
    "labels": ({"input_exemplars": EXAMPLE, "input_exemplar_labels": [1, 1]}, "column 'input_exemplar_labels'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_concepts_get_400_or_their_row_in_a_table_records_the_error(url: str, case: str) -> None:
    cells, message = BAD_ROWS[case]
    row = {"image": coins(), **cells}
    for path in ("/score?model=texts", "/invocations"):
        status, body = score(url, row, path=path)
        assert status == 400 and message in json.dumps(body)
    good = {"image": coins(), "input_points": [[40, 200]]}
    status, rows = score(url, row, good, path="/score?model=texts", on_error="record")
    assert status == 200 and message in rows[0]["error"] and rows[0]["predictions"] == []
    assert rows[1]["error"] is None and len(rows[1]["predictions"]) == 1


def test_five_texts_on_one_image_are_one_encoding(url: str) -> None:
    before = metric(url, 'sam_stage_seconds_count{stage="encode"}')
    texts = ["cup", "spoon", "plate", "fork", "knife"]
    image = base64.b64encode(PICTURE.read_bytes() + b"  ").decode()
    rows: list[dict[str, Any]] = [{"image": image, "input_text": texts}, {"image": image, "input_points": [[40, 200]]}]
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
