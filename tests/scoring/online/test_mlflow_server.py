"""A packaged model behind `mlflow models serve`: requests in every form, and errors."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import free_port, server
from tests.scoring.online.endpoint import BOX, post_bytes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file for the output of the server."""
    return tmp_path_factory.mktemp("serve") / "log"


@pytest.fixture(scope="module")
def url(packaged: Path, log: Path) -> Iterator[str]:
    """Run MLflow's server with the packaged model, and return its URL."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", str(packaged), "--env-manager", "local", "--port", str(port)]
    with server(command, port, "/ping", log, MLFLOW_MODELS_WORKERS="1") as base:
        yield base


def post_json(url: str, **body: Any) -> tuple[int, Any]:
    """Send an object as JSON to /invocations, and return the status and the JSON value of the response."""
    return post_bytes(f"{url}/invocations", json.dumps(body).encode())


def check(answer: tuple[int, Any], truth: np.ndarray, encoding: str = "png", rows: int = 1) -> None:
    """Check that each row of a response has one mask, which is that of the disc."""
    status, body = answer
    assert status == 200, body
    assert len(body["predictions"]) == rows
    for row in body["predictions"]:
        assert row["error"] is None and row["image_id"]
        (mask,) = row["predictions"][0]["mask_per_prediction"]
        decoded = masks.decode(mask["encoded_binary_mask"], encoding, tuple(mask["size"]))
        assert pictures.iou(decoded, truth) > 0.85


@pytest.fixture(scope="module")
def row(disc: tuple[bytes, np.ndarray]) -> dict[str, Any]:
    """Return a row with the disc and a box."""
    return {"image": pictures.to_text(disc[0]), "input_boxes": BOX, "multimask_output": False}


@pytest.fixture(scope="module")
def truth(disc: tuple[bytes, np.ndarray]) -> np.ndarray:
    """Return the true mask of the disc."""
    return disc[1]


def test_scores_dataframe_split_with_params(url: str, row: dict[str, Any], truth: np.ndarray) -> None:
    split = {"columns": list(row), "index": [7, 3], "data": [list(row.values()), list(row.values())]}
    check(post_json(url, dataframe_split=split), truth, rows=2)
    check(post_json(url, dataframe_split=split, params={"mask_encoding": "rle"}), truth, "rle", rows=2)


def test_scores_dataframe_records_with_nested_lists(url: str, row: dict[str, Any], truth: np.ndarray) -> None:
    check(post_json(url, dataframe_records=[row]), truth)
    check(post_json(url, dataframe_records=[{**row, "input_boxes": json.loads(BOX)}]), truth)


def test_scores_instances_and_inputs(url: str, row: dict[str, Any], truth: np.ndarray) -> None:
    check(post_json(url, instances=[row]), truth)
    check(post_json(url, inputs={name: [value] for name, value in row.items()}), truth)
    check(post_json(url, inputs=[row], params={"mask_encoding": "polygon"}), truth, "polygon")


def test_scores_inputs_whose_columns_are_all_text(url: str, row: dict[str, Any]) -> None:
    """MLflow folds such columns into one row of lists."""
    columns = {"image": [row["image"]] * 2, "input_boxes": [BOX, "[0, 0, 50, 50]"]}
    status, body = post_json(url, inputs=columns)
    assert status == 200, body
    assert [len(answer["predictions"]) for answer in body["predictions"]] == [1, 1]
    status, body = post_json(url, inputs={**columns, "input_boxes": [BOX]})
    assert status == 400 and "as many values as 'image' has (2), got 1" in body["message"]


def test_returns_three_masks_for_a_null_multimask_output(url: str, row: dict[str, Any]) -> None:
    status, body = post_json(url, dataframe_records=[{**row, "multimask_output": None}])
    assert status == 200 and len(body["predictions"][0]["predictions"][0]["mask_per_prediction"]) == 3


def test_segments_everything_in_a_row_with_only_an_image(url: str, row: dict[str, Any]) -> None:
    params = {"points_per_side": 5, "pred_iou_thresh": 0, "stability_score_thresh": 0.5, "mask_encoding": "rle"}
    status, body = post_json(url, dataframe_records=[{"image": row["image"]}], params=params)
    objects = [prediction["mask_per_prediction"] for prediction in body["predictions"][0]["predictions"]]
    assert status == 200 and len(objects) >= 2 and {len(masks_of) for masks_of in objects} == {1}
    scores = [mask["iou_score"] for (mask,) in objects]
    assert scores == sorted(scores, reverse=True)
    status, body = post_json(url, dataframe_records=[{"image": row["image"]}], params={"points_per_side": 0})
    assert status == 400 and "parameter 'points_per_side': expected a whole number from 1 to 128" in body["message"]


def test_scores_csv(url: str, row: dict[str, Any], truth: np.ndarray) -> None:
    text = pd.DataFrame([row, row]).assign(input_points="", input_labels="").to_csv(index=False)
    check(post_bytes(f"{url}/invocations", text.encode(), "text/csv"), truth, rows=2)


def test_scores_parquet_with_raw_bytes_and_nested_lists(
    url: str, row: dict[str, Any], disc: tuple[bytes, np.ndarray], truth: np.ndarray
) -> None:
    buffer = io.BytesIO()
    pd.DataFrame([{**row, "image": disc[0], "input_boxes": json.loads(BOX)}]).to_parquet(buffer)
    check(post_bytes(f"{url}/invocations", buffer.getvalue(), "application/vnd.apache.parquet"), truth)


def test_an_image_id_works_in_later_requests(url: str, row: dict[str, Any], truth: np.ndarray) -> None:
    check(post_json(url, dataframe_records=[{**row, "image_id": "disc"}]), truth)
    row_without_image = {name: value for name, value in row.items() if name != "image"}
    check(post_json(url, dataframe_records=[{**row_without_image, "image_id": "disc"}]), truth)
    status, body = post_json(url, dataframe_records=[{**row_without_image, "image_id": "other"}])
    assert status == 404 and "column 'image_id'" in body["message"]


BAD_ROWS = [
    ({"image": "hello, world"}, "row 0, column 'image': expected base64 text of an image"),
    ({"image": "aGVsbG8="}, "5 bytes of no known image format"),
    ({"input_boxes": "[[1, 2"}, "column 'input_boxes': expected (prompts, 4) numbers"),
    ({"input_boxes": "[[5, 5, 2, 9]]"}, "x2 > x1 and y2 > y1, got a box 5,5,2,9"),
    (
        {"input_boxes": "", "input_points": "[[[1, NaN]]]"},
        "finite coordinates from -1,000,000 to 1,000,000 pixels, got NaN",
    ),
    ({"input_boxes": "", "input_labels": "[[1]]"}, "labels without points"),
    ({"input_boxes": "", "input_points": "[[[1, 2]]]", "input_labels": "[[5]]"}, "each one of 1, 0, -1, -10"),
    ({"input_boxes": "", "input_points": "[[[1, 2]]]", "input_labels": "[[1, 1]]"}, "one per point"),
    ({"input_points": "[[[1, 2]], [[3, 4]]]"}, "as many boxes as prompts of points (2), got 1 boxes"),
    ({"multimask_output": "maybe"}, "column 'multimask_output': expected true or false"),
    ({"mask_input": "AAAA"}, "column 'mask_input'"),
]


@pytest.mark.parametrize(("cells", "message"), BAD_ROWS, ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_errors_name_the_row_and_column_without_data(
    url: str, row: dict[str, Any], cells: dict[str, Any], message: str
) -> None:
    status, body = post_json(url, dataframe_records=[{**row, **cells}])
    assert status == 400
    assert message in body["message"] and body["message"].startswith("row 0, column '")
    assert "Traceback" not in json.dumps(body) and row["image"][:30] not in json.dumps(body)


def test_rejects_an_unknown_value_of_a_param(url: str, row: dict[str, Any]) -> None:
    status, body = post_json(url, dataframe_records=[row], params={"mask_encoding": "jpeg"})
    assert status == 400 and "expected 'png' or 'rle' or 'polygon', got text of" in body["message"]


def test_errors_and_log_of_the_model_contain_no_data(url: str, row: dict[str, Any], log: Path) -> None:
    """The test does not cover the text that MLflow's own server adds to errors and to its log."""
    text = f"image,input_boxes\n{row['image']},[[1,2,30,40]]\n"
    for content_type, body in (
        ("text/csv", text.encode()),
        ("application/json", json.dumps({"dataframe_records": [{"image": "sEcret", "unknown-sEcret": 1}]}).encode()),
        (
            "application/json",
            json.dumps({"dataframe_split": {"columns": ["image"], "index": ["sEcret"], "data": [["sEcret"]]}}).encode(),
        ),
        (
            "application/json",
            json.dumps({"dataframe_records": [row], "params": {"mask_encoding": "sEcret", "sEcret": 1}}).encode(),
        ),
    ):
        status, answer = post_bytes(f"{url}/invocations", body, content_type)
        text_of_answer = json.dumps(answer)
        assert status == 400 and len(text_of_answer) < 500, text_of_answer[:500]
        assert "sEcret" not in text_of_answer and row["image"][:30] not in text_of_answer
    written = log.read_text()
    assert "sEcret" not in written and row["image"][:30] not in written


def test_records_a_bad_row_and_scores_the_others(url: str, row: dict[str, Any]) -> None:
    rows = [row, {**row, "image": "broken"}, row]
    status, body = post_json(url, dataframe_records=rows, params={"on_error": "record"})
    assert status == 200
    assert [bool(item["predictions"]) for item in body["predictions"]] == [True, False, True]
    assert body["predictions"][1]["error"].startswith("row 1, column 'image'")


def test_health_routes_answer(url: str) -> None:
    for path in ("/ping", "/health", "/version"):
        with urllib.request.urlopen(url + path, timeout=10) as response:
            assert response.status == 200
