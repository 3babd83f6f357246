"""Logs, metrics and errors contain no data of requests: no images, addresses, keys or values."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.conftest import ROOT, Json, serve_endpoint

KEY, OTHER = "key-of-one-Zq81", "key-of-another-Xw37"
SECRETS = ["Zq81", "Xw37", "wr0ng-k3y", "t0ken-in-a-URL", "priv4te-h0st", "a-n4me-of-an-image", "a-va1ue", "a-c0lumn"]


def bodies(image: str) -> list[tuple[str, Any]]:
    """Return paths and bodies of requests that succeed, fail or are broken, with secrets in every place."""
    urls = ["http://127.0.0.1:9/priv4te-h0st?sig=t0ken-in-a-URL", "http://priv4te-h0st.invalid/?sig=t0ken-in-a-URL"]
    rows: list[dict[str, Any]] = [
        {"image": image, "input_points": [[[9, 9]]], "image_id": "a-n4me-of-an-image"},
        {"image": image, "input_points": "a-va1ue"},
        {"image": image, "input_boxes": [["a-va1ue", 1, 2, 3]]},
        {"image": "a-va1ue", "input_points": [[[9, 9]]]},
        {"image": image[: len(image) // 2], "input_points": [[[9, 9]]]},
        {"image_id": "another a-n4me-of-an-image", "input_points": [[[9, 9]]]},
        {"image": image, "input_points": [[[9, 9]]], "a-c0lumn": "a-va1ue"},
        *({"image": url, "input_points": [[[9, 9]]]} for url in urls),
    ]
    result: list[tuple[str, Any]] = []
    for row in rows:
        result += [("/score", {"input_data": [row]}), ("/invocations", {"dataframe_records": [row]})]
    result += [("/score", {"input_data": [rows[0]], "params": {"mask_encoding": "a-va1ue"}})]
    result += [("/score", {"input_data": [rows[0]], "params": {"a-c0lumn": 1}})]
    for path in ("/sam/segment_image", "/sam/embed_image", "/sam2/segment_image"):
        for picture in (image, image[:200], *urls, "a-va1ue"):
            result.append((path, {"image": {"type": "base64", "value": picture}, "point_coords": "a-va1ue"}))
            result.append((path, {"image": {"type": "a-va1ue", "value": picture}, "format": "a-va1ue"}))
    config = '<View><Image name="a" value="$image"/><BrushLabels name="b" toName="a"><Label value="a-va1ue"/>'
    config += "</BrushLabels></View>"
    click = {"type": "keypointlabels", "value": {"x": 5, "y": 5, "keypointlabels": ["a-va1ue"]}}
    host = {"hostname": "http://127.0.0.1:9/priv4te-h0st", "access_token": "t0ken-in-a-URL"}
    result.append(("/setup", {"project": "a-n4me-of-an-image", "schema": config, **host}))
    for picture in (image[:200], *urls, "/data/upload/a-n4me-of-an-image", "a-va1ue"):
        tasks = {"project": "a-n4me-of-an-image", "label_config": config, "tasks": [{"data": {"image": picture}}]}
        result.append(("/predict", {**tasks, "params": {"context": {"result": [click]}}}))
        result.append(("/embed_tasks", tasks))
        result.append(("/v1/predict", {"model": "sam/vit_b", "image": picture, "params": {"text_prompt": "a-va1ue"}}))
        marks = [{"type": "point", "data": ["a-va1ue", 1]}]
        result.append(("/v1/predict", {"model": "a-n4me-of-an-image", "image": picture, "params": {"marks": marks}}))
        result.append(("/", {"image": picture, "pos_points": [["a-va1ue", 1]]}))
        tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [picture]}
        for model in ("sam/vit_b", "a-n4me-of-an-image"):
            result.append((f"/v2/models/{model}/infer", {"inputs": [tensor], "parameters": {"a-c0lumn": "a-va1ue"}}))
    return result


def test_logs_metrics_and_errors_contain_no_secret_of_a_request(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    log, image = tmp_path / "log", base64.b64encode(disc[0]).decode()
    texts: list[str] = []
    with serve_endpoint(log, "--model", packaged, SAM_API_KEYS=f"{KEY},{OTHER}") as url:
        for key in (KEY, OTHER, "wr0ng-k3y"):
            for path, body in bodies(image):
                answer = requests.post(f"{url}{path}?api_key={key}", json=body, timeout=60)
                assert answer.status_code < 500, answer.text
                assert (answer.status_code == 401) is (key == "wr0ng-k3y")
                # Other responses contain the client's own image_id. X-AnyLabeling's errors have status 200.
                if answer.status_code != 200 or path in ("/setup", "/embed_tasks", "/v1/predict"):
                    texts.append(answer.text)
            requests.post(f"{url}/score?api_key={key}", data=b'{"input_data": a-va1ue', timeout=60)
            requests.post(
                f"{url}/segment-anything-2",
                files={"image": ("a-n4me-of-an-image", b"a-va1ue")},
                data={"model_id": "", "box": "a-va1ue"},
                headers={"Authorization": f"Bearer {key}"},
                timeout=60,
            )
        texts.append(requests.get(f"{url}/metrics?api_key={KEY}", timeout=10).text)
        texts.append(requests.get(f"{url}/models?api_key={KEY}", timeout=10).text)
    logged = log.read_text()
    assert logged.count('"request_id"') > 100
    assert "Traceback" not in logged
    for text in (*texts, logged):
        for secret in (*SECRETS, image[100:140]):
            assert secret not in text, f"{secret} in {text[:1000]}"
    for text in texts:
        assert str(ROOT) not in text and "Traceback" not in text, text[:1000]
    assert all(json.loads(line[line.index("{") :])["path"] for line in logged.splitlines() if '"request_id"' in line)


@pytest.mark.parametrize("path", ["/invocations", "/score"])
def test_an_image_is_encoded_again_for_another_key(
    packaged: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path, path: str
) -> None:
    """Otherwise the response time would reveal whether another key has sent the same image."""
    row: dict[str, Json] = {"image": base64.b64encode(disc[0]).decode(), "input_points": [[[9, 9]]]}
    body: Json = {"input_data": [row]} if path == "/score" else {"dataframe_records": [row]}

    def encoder_calls() -> int:
        lines = requests.get(f"{url}/metrics?api_key={KEY}", timeout=10).text.splitlines()
        counts = [line for line in lines if line.startswith('sam_stage_seconds_count{stage="encode"}')]
        return int(float(counts[0].split()[-1])) if counts else 0

    with serve_endpoint(tmp_path / "log", "--model", packaged, SAM_API_KEYS=f"{KEY},{OTHER}") as url:
        counts = [encoder_calls()]
        for key in (KEY, KEY, OTHER, OTHER):
            assert requests.post(url + path, json=body, headers={"X-API-Key": key}, timeout=60).status_code == 200
            counts.append(encoder_calls())
    assert np.diff(counts).tolist() == [1, 0, 1, 0]
