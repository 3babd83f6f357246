"""Requests in every dialect: tenants, caching of images, and errors."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from tests import pictures
from tests.conftest import Json
from tests.scoring.online.endpoint import (
    AUTH,
    BOX,
    KEY,
    OTHER_KEY,
    base64_image,
    click_prompt,
    error_message,
    metric,
    post,
)


@pytest.fixture(scope="module")
def url(keyed_url: str) -> str:
    """Return the URL of the endpoint with two models and two keys."""
    return keyed_url


def test_a_key_cannot_use_the_image_ids_of_another_key(url: str, picture: Path) -> None:
    body = {"image": base64_image(picture), "image_id": "mine alone", **click_prompt()}
    assert post(url, "/sam2/segment_image", body).status_code == 200
    by_id = {"image_id": "mine alone", **click_prompt()}
    assert post(url, "/sam2/segment_image", by_id).status_code == 200
    answer = post(url, "/sam2/segment_image", by_id, key=OTHER_KEY)
    assert answer.status_code == 404 and "an unknown id" in answer.json()["message"]
    rows = {"dataframe_records": [{"image_id": "mine alone", "input_boxes": BOX}]}
    assert post(url, "/invocations", rows, key=OTHER_KEY).status_code == 404


def test_a_cached_image_is_neither_decoded_nor_encoded_again(url: str) -> None:
    image = pictures.to_text(pictures.disc(222, 111)[0])
    names = {stage: f'sam_stage_seconds_count{{stage="{stage}"}}' for stage in ("fetch", "decode", "encode", "prompt")}
    counts = [{stage: metric(url, name) for stage, name in names.items()}]
    first_body = {"image": {"type": "base64", "value": image}, "image_id": "once", **click_prompt()}
    for body in (first_body, first_body, {**first_body, "image": None}):
        assert post(url, "/sam2/segment_image", body).status_code == 200
        counts.append({stage: metric(url, name) for stage, name in names.items()})
    increases = [
        {stage: later[stage] - earlier[stage] for stage in names} for earlier, later in itertools.pairwise(counts)
    ]
    assert increases[0] == {"fetch": 1, "decode": 1, "encode": 1, "prompt": 1}
    assert increases[1] == increases[2] == {"fetch": 0, "decode": 0, "encode": 0, "prompt": 1}
    assert metric(url, 'sam_requests_total{route="/sam2/segment_image",status="200"}') >= 3
    assert metric(url, "sam_embedding_bytes") > 0 and metric(url, "sam_requests_in_flight") == 0
    assert metric(url, 'sam_model_bytes{model="disc-finder"}') > 1e6


def test_clients_that_send_the_same_new_image_encode_it_once(url: str) -> None:
    image = pictures.to_text(pictures.disc(321, 123)[0])
    encoder_calls = 'sam_stage_seconds_count{stage="encode"}'
    before = metric(url, encoder_calls)
    start = threading.Barrier(16)

    def ask_for(i: int) -> Any:
        start.wait()
        rows: list[Json] = [{"image": image, "input_points": [[[80 + i, 80]]], "multimask_output": False}]
        return post(url, "/score", {"input_data": rows, "params": {"mask_encoding": "rle"}})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask_for, range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert metric(url, encoder_calls) == before + 1
    for i in (0, 15):  # each client has received the mask of its own click
        alone = score_alone(url, image, 80 + i)
        assert pictures.tolerant(answers[i].json()) == pictures.tolerant(alone)


def score_alone(url: str, image: str, x: int) -> Any:
    """Score one click on an image, and return the JSON value of the response."""
    rows: list[Json] = [{"image": image, "input_points": [[[x, 80]]], "multimask_output": False}]
    return post(url, "/score", {"input_data": rows, "params": {"mask_encoding": "rle"}}).json()


POSITIVE_NULL = {"image": EXAMPLE_PNG, "prompts": [{"points": [{"x": 9, "y": 9, "positive": None}]}]}
BAD_REQUESTS = [
    ("/score", {"input_data": 5}, 400, ("error", "message"), "input_data: expected columns and data"),
    ("/score", {"input_data": [{"image": "!!"}]}, 400, ("error", "message"), "row 0, column 'image'"),
    (
        "/score?model=x",
        {"input_data": [{"image": "!!"}]},
        404,
        ("error", "message"),
        "no model of this name (text of 1 ch",
    ),
    ("/score?model=dsc-finder", {"input_data": []}, 404, ("error", "message"), "(did you mean 'disc-finder'?)"),
    ("/score", {"input_data": [{"image": "", "input_box": 1}]}, 400, ("error", "message"), "the name 'input_boxes'"),
    ("/invocations", {"inputs": [{"image": "", "bbox": 1}]}, 400, ("message",), "column 'bbox': expected the name"),
    ("/invocations", {"dataframe_records": [{"image": "!!"}]}, 400, ("message",), "row 0, column 'image'"),
    ("/sam2/segment_image", {"image": {"type": "numpy", "value": "x"}}, 400, ("message",), "a numpy image is a pickle"),
    ("/sam2/segment_image", {"image_id": "never"}, 404, ("message",), "an unknown id"),
    ("/sam2/segment_image", {}, 400, ("message",), "expected an image, or the image_id"),
    (
        "/sam2/segment_image",
        {"sam2_version_id": "huge"},
        404,
        ("message",),
        "no model of this name (text of 9 characters)",
    ),
    ("/sam2/segment_image", {"image": "!!", "prompts": 7}, 400, ("message",), "column 'image'"),
    ("/sam2/segment_image", POSITIVE_NULL, 400, ("message",), "column 'prompts[0].points': expected positive"),
    ("/sam2/segment_image", {"multimask_output": "maybe"}, 400, ("message",), "multimask_output"),
    ("/sam/segment_image", {"embeddings": [[1]], "orig_im_size": [5, 5]}, 400, ("message",), "column 'embeddings'"),
    ("/sam/segment_image", {"format": "tiff"}, 400, ("message",), "format: Input should be 'json' or 'binary'"),
    ("/segment-anything-2", {}, 415, ("detail", "msg"), "content-type: expected multipart/form-data, got another"),
]


@pytest.mark.parametrize(("path", "body", "status", "keys", "message"), BAD_REQUESTS, ids=lambda value: str(value)[:40])
def test_errors_have_the_form_of_the_dialect(
    url: str, path: str, body: Any, status: int, keys: tuple[str, ...], message: str
) -> None:
    answer = post(url, path, body)
    assert answer.status_code == status, answer.text
    assert (
        message in error_message(answer, keys)
        and "Traceback" not in answer.text
        and "/site-packages" not in answer.text
    )
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/score", ("error", "message")),
        ("/invocations", ("message",)),
        ("/sam2/embed_image", ("message",)),
        ("/segment-anything-2", ("detail", "msg")),
    ],
)
def test_wrong_keys_large_bodies_and_broken_json_are_errors_of_the_dialect(
    url: str, path: str, keys: tuple[str, ...]
) -> None:
    kind = "multipart/form-data; boundary=x" if path == "/segment-anything-2" else "application/json"
    headers = {**AUTH, "content-type": kind}
    for key in ("", "wrong", KEY + "x"):
        keyed = {**headers, "authorization": f"Bearer {key}"}
        wrong = requests.post(url + path, data=b"{}", headers=keyed, timeout=60)
        assert wrong.status_code == 401 and "an API key is needed" in error_message(wrong, keys)
    large = requests.post(url + path, data=b"x" * 10_000_000, headers=headers, timeout=60)
    assert large.status_code == 413 and "expected a request body of at most 9,000,000 bytes" in error_message(
        large, keys
    )
    broken = requests.post(url + path, data=b'{"a": [', headers=headers, timeout=60)
    assert broken.status_code == 400 and error_message(broken, keys)


DEEP = b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HALF = b'{"image": "\\ud800", "input_data": [{"image": "\\ud800", "input_points": [[1, 2]]}]}'


@pytest.mark.parametrize("body", [DEEP, HALF, b"", b"null", b"[]", b"7", b'"text"', b'{"image": NaN}', b"\xff\xfe"])
@pytest.mark.parametrize(
    "path",
    ["/score", "/invocations", "/sam/embed_image", "/sam/segment_image", "/sam2/embed_image", "/sam2/segment_image"],
)
def test_bodies_of_another_kind_have_a_status_of_400_to_499(url: str, path: str, body: bytes) -> None:
    answer = requests.post(url + path, data=body, headers={**AUTH, "content-type": "application/json"}, timeout=60)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text and "/site-packages" not in answer.text


def test_rejects_more_prompts_than_the_limit(url: str, picture: Path) -> None:
    prompts = click_prompt()["prompts"]["prompts"] * 51
    answer = post(url, "/sam2/segment_image", {"image": base64_image(picture), "prompts": prompts})
    assert answer.status_code == 400 and "at most 50 prompts, got 51" in answer.json()["message"]
    rows: list[Json] = [{"image": base64_image(picture)["value"], "input_boxes": [[0, 0, 9, 9]] * 51}]
    answer = post(url, "/score", {"input_data": rows})
    assert "row 0, column 'input_boxes': expected at most 50 prompts, got 51" in answer.json()["error"]["message"]
