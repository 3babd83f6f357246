"""The entry script in Azure's inference server: Azure's sample of five rows, other forms of input, and errors."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring import azure
from tests.conftest import ROOT, free_port, server
from tests.model.test_scorer import AZURE_SAMPLE
from tests.scoring.online.endpoint import post_bytes

COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for models and for the log of the server."""
    return tmp_path_factory.mktemp("azure")


@pytest.fixture(scope="module")
def url(packaged: Path, folder: Path) -> Iterator[str]:
    """Run Azure's inference server with the entry script, and return its URL."""
    shutil.copytree(packaged, folder / "models" / "sam" / "1")  # Azure puts the model into a subfolder
    port = free_port()
    script = str(ROOT / "scoring" / "online" / "score.py")
    command = ["azmlinfsrv", "--entry_script", script, "--port", str(port)]
    with server(command, port, "/", folder / "log", AZUREML_MODEL_DIR=str(folder / "models")) as base:
        yield base


def sample(photograph: bytes) -> dict[str, Any]:
    """Return the body of Azure's sample for an image."""
    image = base64.encodebytes(photograph).decode("utf8")
    data = [[image, *(row.get(name, "") for name in COLUMNS[1:4]), False] for row in AZURE_SAMPLE]
    return {"input_data": {"columns": COLUMNS, "index": list(range(5)), "data": data}, "params": {}}


def test_azures_sample_returns_png_masks(url: str, photograph: bytes) -> None:
    status, body = post_bytes(f"{url}/score", json.dumps(sample(photograph)).encode())
    assert status == 200, body
    assert isinstance(body, list) and [len(row["predictions"]) for row in body] == [2, 1, 1, 1, 1]
    for row in body:
        for prediction in row["predictions"]:
            (mask,) = prediction["mask_per_prediction"]
            picture = Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"])))
            assert (picture.mode, picture.size) == ("L", (900, 600))
            assert set(np.unique(np.asarray(picture))) <= {0, 255}
            assert 0 <= mask["iou_score"] <= 1.2


def test_response_format_azureml_has_the_form_that_azures_notebooks_read(url: str, photograph: bytes) -> None:
    """The form is that of the model that Azure itself offers."""
    body = {**sample(photograph), "params": {"response_format": "azureml"}}
    status, answer = post_bytes(f"{url}/score", json.dumps(body).encode())
    assert status == 200
    for row in answer:
        for prediction in row["response"]["predictions"]:
            for item in prediction["masks_per_prediction"]:
                mask = np.array(Image.open(io.BytesIO(base64.b64decode(item["encoded_binary_mask"]))))
                assert mask.shape == (600, 900) and isinstance(item["iou_score"], float)


@pytest.mark.parametrize("form", ["records", "by column"])
def test_scores_other_forms_of_input_data(url: str, photograph: bytes, form: str) -> None:
    record = {"image": base64.b64encode(photograph).decode(), "input_boxes": "[[125,240,375,425]]"}
    data = [record] if form == "records" else {name: [value] for name, value in record.items()}
    status, body = post_bytes(f"{url}/score", json.dumps({"input_data": data}).encode())
    assert status == 200 and len(body) == 1 and len(body[0]["predictions"][0]["mask_per_prediction"]) == 3


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"input_data": ', 400, "not JSON"),
        (b"[1, 2]", 400, "without input_data"),
        (b'{"input_data": 7}', 400, "expected columns and data, a list of records or lists by column"),
        (b'{"input_data": {"columns": ["image"], "data": [["a", "b"]]}}', 400, "expected 1 values in data[0]"),
        (
            b'{"input_data": {"columns": ["image"], "index": [0, 1], "data": [["a"]]}}',
            400,
            "expected 1 labels in index",
        ),
        (b'{"input_data": {"columns": [["image"]], "data": [["a"]]}}', 400, "names in columns to be text"),
        (b'{"input_data": {"columns": ["image"], "index": [{}], "data": [["a"]]}}', 400, "labels in index to be text"),
        (b'{"input_data": {"image": ["a"], "input_boxes": []}}', 400, "lists of the same length"),
        (b'{"input_data": [{"image": "hello!", "input_boxes": [1, 2, 3, 4]}]}', 400, "row 0, column 'image'"),
        (b'{"input_data": [{"image_id": "gone", "input_boxes": [1, 2, 3, 4]}]}', 404, "row 0, column 'image_id'"),
        (b'{"input_data": [{"image": "a"}], "params": 7}', 400, "params: expected an object"),
        (b'{"input_data": [{"image": "a"}], "params": {"mask_encoding": "jpeg"}}', 400, "parameter 'mask_encoding'"),
    ],
    ids=lambda value: value.decode()[:40] if isinstance(value, bytes) else "",
)
def test_bad_requests_have_an_error_with_status_and_message(url: str, body: bytes, status: int, message: str) -> None:
    actual_status, answer = post_bytes(f"{url}/score", body)
    assert actual_status == status
    assert message in answer["error"]["message"] and "Traceback" not in json.dumps(answer)


@pytest.mark.parametrize(
    "body",
    [
        b'{"input_data": sEcret',
        b'{"input_data": {"sEcret": "sEcret"}}',
        b'{"input_data": {"image": "sEcret", "input_boxes": ["sEcret"]}}',
        b'{"input_data": {"columns": ["image"], "index": ["sEcret"], "data": [["sEcret"]]}}',
        b'{"input_data": [{"image_id": "sEcret", "input_points": "sEcret"}]}',
        b'{"input_data": [{"image": "sEcret"}], "params": {"sEcret": 1}}',
        b'{"input_data": [{"image": "sEcret"}], "params": {"mask_encoding": "sEcret"}}',
        b'{"input_data": [{"image": "sEcret", "input_box": "sEcret"}]}',
    ],
)
def test_errors_and_log_contain_no_data(url: str, folder: Path, body: bytes) -> None:
    status, answer = post_bytes(f"{url}/score", body)
    assert status in (400, 404) and len(answer["error"]["message"]) > 20
    assert "sEcret" not in json.dumps(answer) and "sEcret" not in (folder / "log").read_text()


def test_keeps_null_in_a_cell() -> None:
    table, params = azure.read_request(
        '{"input_data": {"columns": ["multimask_output"], "data": [[true], [null], [false]]}}'
    )
    assert table["multimask_output"].tolist() == [True, None, False] and params == {}


def test_packaged_limits_apply(folder: Path, photograph: bytes) -> None:
    package.save(package.EMBEDDED, folder / "limited" / "model", {"max_rows": 2, "max_answer_bytes": 3000})
    port, script = free_port(), str(ROOT / "scoring" / "online" / "score.py")
    command = ["azmlinfsrv", "--entry_script", script, "--port", str(port)]
    row = {"image": base64.b64encode(photograph).decode(), "input_boxes": "[[125,240,375,425]]"}
    with server(command, port, "/", folder / "log2", AZUREML_MODEL_DIR=str(folder / "limited")) as base:
        status, body = post_bytes(f"{base}/score", json.dumps({"input_data": [row] * 3}).encode())
        assert status == 400 and "expected at most 2 rows a request, got 3" in body["error"]["message"]
        status, body = post_bytes(f"{base}/score", json.dumps({"input_data": [row]}).encode())
        assert status == 400 and "3,000 bytes" in body["error"]["message"]
