"""The Open Inference Protocol, as Triton's published clients and KServe speak it."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import free_port, run_with_clients, serve_endpoint
from tests.scoring.online.triton import MODEL

KEY = "correct-horse"
SCRIPT = Path(__file__).with_name("triton.py")
AUTH = {"x-api-key": KEY}
INFER = f"/v2/models/{MODEL}/infer"
LIMIT = 2_000_000
COLUMNS = [
    *("image", "input_points", "input_boxes", "input_labels", "multimask_output", "image_id", "mask_input"),
    *("input_text", "input_exemplars", "input_exemplar_labels", "input_exemplar_image"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """URL of an endpoint with keys, its gRPC address and its log."""
    grpc_port, log = free_port(), tmp_path_factory.mktemp("open-inference") / "log"
    options = ["--grpc-port", grpc_port, "--public-metrics", "true", "--body-bytes", LIMIT]
    with serve_endpoint(log, *options, SAM_API_KEYS=KEY) as url:
        yield url, f"127.0.0.1:{grpc_port}", log


@pytest.fixture(scope="module")
def url(served: tuple[str, str, Path]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def scored(url: str, disc: tuple[bytes, np.ndarray]) -> Any:
    """What `/score` answers to the clients' request."""
    row: dict[str, Any] = {
        "image": pictures.to_text(disc[0]),
        "input_boxes": [[68, 38, 153, 123]],
        "multimask_output": False,
    }
    body: dict[str, Any] = {"input_data": [row], "params": {"mask_encoding": "rle"}}
    answer = requests.post(f"{url}/score?model={MODEL}", json=body, headers=AUTH, timeout=60).json()
    return pictures.tolerant(answer[0])


def test_tritons_http_client(url: str, picture: Path, scored: Any, disc: tuple[bytes, np.ndarray]) -> None:
    found = run_with_clients(SCRIPT, "http", url, picture, KEY, environment="tools")
    ready = {name: found[name] for name in ("live", "ready", "model_ready", "version_ready", "unknown_ready")}
    assert ready == {**dict.fromkeys(ready, True), "unknown_ready": False}
    assert (
        found["server"]["name"] == "segment-anything-endpoint" and "binary_tensor_data" in found["server"]["extensions"]
    )
    assert found["model"] == found["version"] and found["model"]["name"] == MODEL
    assert [tensor["name"] for tensor in found["model"]["inputs"]] == COLUMNS
    for form in ("binary", "json", "gzip", "versioned"):
        answer = found[form]
        assert (answer["shape"], answer["id"], answer["model"]) == ([1, 1], "7", MODEL)
        assert pictures.tolerant(answer["row"]) == scored
    (mask,) = found["binary"]["row"]["predictions"][0]["mask_per_prediction"]
    assert pictures.iou(masks.decode(mask["encoded_binary_mask"], "rle", (160, 240)), disc[1]) > 0.85
    assert "[401] an API key is needed" in found["no_key"]
    assert "[404] no model of this name ('sam-tinny' (did you mean 'sam-tiny'?))" in found["unknown_model"]
    assert "[400] column 'image'" in found["no_image"]
    assert "[400] outputs: expected the name predictions" in found["wrong_output"]


def test_tritons_grpc_client(served: tuple[str, str, Path], picture: Path, scored: Any) -> None:
    url, address, log = served
    found = run_with_clients(SCRIPT, "grpc", address, picture, KEY, environment="tools")
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["server"]["name"] == "segment-anything-endpoint"
    assert [tensor["name"] for tensor in found["model"]["inputs"]] == COLUMNS
    assert (found["answer"]["shape"], found["answer"]["id"], found["answer"]["model"]) == ([1, 1], "7", MODEL)
    assert pictures.tolerant(found["answer"]["row"]) == pictures.tolerant(found["after_late"]["row"]) == scored
    for name, said in (
        ("unknown_ready", "[StatusCode.NOT_FOUND] no model of this name"),
        ("no_key", "[StatusCode.UNAUTHENTICATED] an API key is needed"),
        ("wrong_key", "[StatusCode.UNAUTHENTICATED] an API key is needed"),
        ("unknown_model", "[StatusCode.NOT_FOUND] no model of this name"),
        ("no_image", "[StatusCode.INVALID_ARGUMENT] column 'image'"),
        ("late", "[StatusCode.DEADLINE_EXCEEDED]"),
    ):
        assert found[name].startswith(said), found[name]
    # The call that was given up stopped, and gave its place back.
    deadline = time.monotonic() + 5
    while "sam_requests_in_flight 0.0" not in requests.get(f"{url}/metrics", timeout=10).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert '"status": 499' in log.read_text() and KEY not in log.read_text()


def tensor(name: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": data, **more}


def binary(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


IMAGE = tensor("image", ["!!"])
SIZED: dict[str, Any] = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
WRONG: list[tuple[Any, bytes, str]] = [
    ([], b"", "expected a JSON object"),
    ({}, b"", "inputs: expected a list of tensors, got nothing"),
    ({"inputs": [5]}, b"", "inputs: expected a list of tensors"),
    ({"inputs": [tensor("image", ["x"])] * 101}, b"", "inputs: expected at most 100 tensors, got 101"),
    ({"inputs": [IMAGE, IMAGE]}, b"", "inputs[1].name: expected a text that differs from all other names"),
    ({"inputs": [{**IMAGE, "name": 5}]}, b"", "inputs[0].name"),
    ({"inputs": [{**IMAGE, "shape": [1, 2]}]}, b"", "inputs[0].shape: expected [rows, 1] or [rows]"),
    ({"inputs": [{**IMAGE, "shape": [True]}]}, b"", "inputs[0].shape"),
    ({"inputs": [{**IMAGE, "shape": [10**9, 1]}]}, b"", "at most 1,000 rows"),
    ({"inputs": [{**IMAGE, "data": "text"}]}, b"", "inputs[0].data: expected a list"),
    ({"inputs": [{**IMAGE, "shape": [2, 1]}]}, b"", "inputs[0]: expected 2 elements, the number in its shape, got 1"),
    ({"inputs": [{**IMAGE, "parameters": 5}]}, b"", "inputs[0].parameters: expected an object"),
    ({"inputs": [IMAGE]}, b"", "column 'image'"),
    ({"inputs": [IMAGE, tensor("input_box", ["x"])]}, b"", "column 'input_box': expected the name 'input_boxes'"),
    ({"inputs": [IMAGE], "parameters": {"mask_encoding": "tiff"}}, b"", "mask_encoding"),
    ({"inputs": [IMAGE], "outputs": 5}, b"", "outputs: expected a list of outputs"),
    ({"inputs": [IMAGE], "outputs": [{"name": "masks"}]}, b"", "outputs: expected the name predictions"),
    ({"inputs": [SIZED]}, b"12345", "binary_data_size: expected at most 5, the number of remaining bytes"),
    (
        {"inputs": [SIZED]},
        b"\x02\x00\x00\x00abc",
        "expected 6 bytes of binary data, the sum of all binary_data_size, got 7",
    ),
    ({"inputs": [SIZED | {"shape": [1]}]}, binary(b"", b"")[:6], "data that end early"),
    ({"inputs": [SIZED | {"parameters": {"binary_data_size": 4 * 10**5}}]}, bytes(4 * 10**5), "got more"),
    ({"inputs": [{**SIZED, "datatype": "FP32"}]}, b"123456", "datatype: expected BYTES or BOOL"),
    ({"inputs": [SIZED]}, b"\xff\xff\xff\xff12", "data that end early"),
    ({"inputs": [{**SIZED, "name": "input_boxes"}]}, binary(b"\xff\xfe"), "expected elements of UTF-8 text"),
]


@pytest.mark.parametrize(("body", "data", "said"), WRONG, ids=[case[2][:40] for case in WRONG])
def test_wrong_requests(url: str, body: Any, data: bytes, said: str) -> None:
    text = json.dumps(body).encode()
    headers = {**AUTH, "content-type": "application/octet-stream"}
    if data:
        headers["inference-header-content-length"] = str(len(text))
    answer = requests.post(url + INFER, data=text + data, headers=headers, timeout=60)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"} and said in answer.json()["error"], answer.text


@pytest.mark.parametrize("length", ["-1", "0", "99999", "x", "1e3", "²", "9" * 5000])
def test_wrong_header_lengths(url: str, length: str) -> None:
    headers: dict[str, str | bytes] = {**AUTH, "inference-header-content-length": length.encode()}
    answer = requests.post(url + INFER, data=b"{}", headers=headers, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"].startswith("inference-header-content-length: expected")


def test_a_gzip_body_is_bounded_after_inflation(url: str) -> None:
    headers = {**AUTH, "content-encoding": "gzip", "inference-header-content-length": "2"}
    answer = requests.post(url + INFER, data=gzip.compress(b"{}" + bytes(LIMIT)), headers=headers, timeout=60)
    assert answer.status_code == 413 and f"at most {LIMIT:,} bytes" in answer.json()["error"]


def test_probes_need_no_key_and_all_else_does(url: str) -> None:
    for path, status in (
        ("/v2/health/live", 200),
        ("/v2/health/ready", 200),
        ("/v2", 401),
        (f"/v2/models/{MODEL}", 401),
        (f"/v2/models/{MODEL}/ready", 401),
        ("/v2/nothing", 401),
    ):
        assert requests.get(url + path, timeout=10).status_code == status
        assert requests.head(url + path, timeout=10).status_code == status
    missing = requests.get(f"{url}/v2/nothing", headers=AUTH, timeout=10)
    assert missing.status_code == 404 and missing.json() == {"error": "no such path; /docs lists the available paths"}


def test_images_by_url_and_base64_are_the_clients_choice(url: str, disc: tuple[bytes, np.ndarray]) -> None:
    """An image tensor of JSON is base64 text; a binary one is the file, or base64 where its parameters say so."""
    text = base64.b64encode(disc[0])
    data = binary(text)
    sized = {**SIZED, "parameters": {"binary_data_size": len(data), "content_type": "base64"}}
    head = json.dumps({"inputs": [sized, tensor("input_points", ["[[[110, 80]]]"])]}).encode()
    headers = {**AUTH, "inference-header-content-length": str(len(head))}
    answer = requests.post(url + INFER, data=head + data, headers=headers, timeout=60)
    in_json = {"inputs": [tensor("image", [text.decode()]), tensor("input_points", ["[[[110, 80]]]"])]}
    plain = requests.post(url + INFER, json=in_json, headers=AUTH, timeout=60)
    assert answer.status_code == plain.status_code == 200
    rows = [json.loads(each.json()["outputs"][0]["data"][0]) for each in (answer, plain)]
    assert pictures.tolerant(rows[0]) == pictures.tolerant(rows[1]) and rows[0]["predictions"]
