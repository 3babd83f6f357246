"""The endpoint as other systems' clients find it, in a process of its own."""

from __future__ import annotations

import base64
import io
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import yaml
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from PIL import ExifTags, Image, ImageDraw, ImageOps
from pycocotools import mask as coco

from sam_endpoint.model import masks
from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring.online.example_image import EXAMPLE_PNG
from tests import pictures
from tests.conftest import ROOT, Json, free_port, server
from tests.model.test_scorer import AZURE_SAMPLE
from tests.warm import python

KEY = "correct horse"
OTHER_KEY = "battery staple"
BOX = "[[68, 38, 153, 123]]"
AUTH = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("endpoint")
    sam2_names = [f"sam2/hiera_{size}" for size in ("tiny", "small", "b_plus", "large")]
    catalog = {
        "default": "disc-finder",
        "models": {
            "disc-finder": {"model": str(packaged), "stands_in_for": ["sam/vit_b", "sam/vit_h"]},
            "second-finder": {"checkpoint": str(package.EMBEDDED_SAM2), "stands_in_for": sam2_names},
        },
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    (folder / "keys").write_text(f"{KEY}\n{OTHER_KEY}\n")
    port = free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--catalog", str(folder / "catalog.yaml")]
    command += [
        "--api-keys-file",
        str(folder / "keys"),
        "--prompts",
        "50",
        "--body-bytes",
        "9000000",
        "--public-metrics",
        "true",
    ]
    with server(command, port, "/ready", folder / "log", PYTHONPATH=str(ROOT), HF_HUB_OFFLINE="1") as base:
        yield base


@pytest.fixture(scope="module")
def picture(disc: tuple[bytes, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "disc.png"
    file.write_bytes(disc[0])
    return file


def ask(client: str, url: str, picture: Path) -> Any:
    """What a published client prints, run in its own environment."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    command = [str(python), str(Path(__file__).with_name("clients.py")), client, url, str(picture), KEY]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def post(url: str, path: str, body: Json, key: str = KEY) -> Any:
    return requests.post(url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def filled(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", size[::-1])
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(pair) for pair in polygon], fill=1)
    return np.asarray(canvas) > 0


def test_roboflows_client(url: str, picture: Path, disc: tuple[bytes, np.ndarray]) -> None:
    found = ask("roboflow", url, picture)
    for predictions, count in ((found["polygons"], 2), (found["nothing"], 1)):
        assert len(predictions["predictions"]) == count and predictions["time"] > 0
        for one in predictions["predictions"]:
            assert one["format"] == "polygon" and 0 <= one["confidence"] <= 1
            assert all(len(pair) == 2 for polygon in one["masks"] for pair in polygon)
    rle = found["rle"]["predictions"]
    assert [one["format"] for one in rle] == ["rle", "rle"]
    for one in rle:
        assert pictures.iou(coco.decode(one["masks"]).astype(bool), disc[1]) > 0.7
    for one in found["polygons"]["predictions"]:
        assert pictures.iou(filled(one["masks"], (160, 240)), disc[1]) > 0.7
    assert [len(one["predictions"]) for one in found["many"]] == [1, 1]
    click = found["polygons"]["predictions"][0]
    again = post(url, "/sam2/segment_image", {"image": _base64(picture), "sam2_version_id": "hiera_small"} | _click())
    assert again.json()["predictions"][0]["masks"] == click["masks"]
    assert again.headers["x-answered-by"] == "second-finder"


def _base64(picture: Path) -> dict[str, str]:
    return {"type": "base64", "value": base64.b64encode(picture.read_bytes()).decode()}


def _click() -> dict[str, Any]:
    return {"prompts": {"prompts": [{"points": [{"x": 110, "y": 80, "positive": True}]}]}}


def test_roboflows_published_samples(url: str, picture: Path, disc: tuple[bytes, np.ndarray]) -> None:
    """As their documentation asks: a key in the query, prompts at the embedding route, answers in three forms."""
    asked: dict[str, Json] = {"image": _base64(picture), "image_id": "the disc", "sam_version_id": "vit_h"}
    embedded = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json=asked, timeout=60)
    features = np.asarray(embedded.json()["embeddings"])
    assert features.shape == (1, 128, 45, 45) and embedded.json()["time"] > 0
    binary = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json={**asked, "format": "binary"}, timeout=60)
    assert binary.headers["content-type"] == "application/octet-stream"
    assert np.allclose(np.load(io.BytesIO(binary.content)), features, atol=1e-5)

    points: dict[str, Json] = {"point_coords": [[110, 80]], "point_labels": [1]}
    with_masks = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json={**asked, **points}, timeout=60).json()
    assert pictures.iou(filled(with_masks["masks"], (160, 240)), disc[1]) > 0.7
    in_body: dict[str, Json] = {"api_key": KEY, "image_id": "the disc", "sam_version_id": "vit_h", **points}
    by_id = requests.post(f"{url}/sam/segment_image", json=in_body, timeout=60).json()
    assert by_id["masks"] == with_masks["masks"] and len(by_id["low_res_masks"]) == 1
    given = {"embeddings": features.tolist(), "orig_im_size": [160, 240], "sam_version_id": "vit_b", **points}
    by_embedding = post(url, "/sam/segment_image", given).json()
    assert pictures.iou(filled(by_embedding["masks"], (160, 240)), filled(by_id["masks"], (160, 240))) > 0.99
    archive = np.load(io.BytesIO(post(url, "/sam/segment_image", {**in_body, "format": "binary"}).content))
    assert archive["masks"].shape == (1, 160, 240) and archive["low_res_masks"].shape == (1, 180, 180)
    refined = post(url, "/sam/segment_image", {**in_body, "has_mask_input": True}).json()
    assert pictures.iou(filled(refined["masks"], (160, 240)), filled(by_id["masks"], (160, 240))) > 0.6

    asked = {"image": _base64(picture), "image_id": "again", "sam2_version_id": "hiera_tiny"}
    embedded = requests.post(f"{url}/sam2/embed_image?api_key={KEY}", json=asked, timeout=60).json()
    assert embedded["image_id"] == "again" and embedded["time"] > 0
    flat = requests.post(f"{url}/sam2/embed_image?api_key={KEY}", json={**asked, **points}, timeout=60).json()
    assert pictures.iou(filled(flat["masks"][0], (160, 240)), disc[1]) > 0.7
    unnamed = post(url, "/sam2/embed_image", {"image": {"type": "base64", "value": _base64(picture)["value"]}}).json()
    assert len(unnamed["image_id"]) == 64
    later = post(url, "/sam2/segment_image", {"image_id": unnamed["image_id"], **_click(), "format": "binary"})
    archive = np.load(io.BytesIO(later.content))
    assert archive["masks"].shape == (1, 160, 240) and archive["low_res_masks"].shape == (1, 224, 224)


def test_roboflows_kept_logits(url: str, picture: Path) -> None:
    """A prompt that grew starts from the logits of the largest earlier one it grew from."""
    base: dict[str, Json] = {"image": _base64(picture), "image_id": "growing", "format": "binary"}

    def logits(clicks: list[tuple[int, int]], **more: Any) -> np.ndarray:
        prompts = [{"points": [{"x": x, "y": y, "positive": True} for x, y in clicks]}]
        answer = post(url, "/sam2/segment_image", {**base, "prompts": prompts, **more})
        assert answer.status_code == 200, answer.text
        low_res_masks: np.ndarray = np.load(io.BytesIO(answer.content))["low_res_masks"]
        return low_res_masks

    first = logits([(110, 80)], save_logits_to_cache=True)
    logits([(20, 20)], save_logits_to_cache=True)
    grown = logits([(110, 80), (120, 90)], load_logits_from_cache=True)
    by_hand = logits([(110, 80), (120, 90)], mask_input=first.tolist())
    plain = logits([(110, 80), (120, 90)])
    assert np.allclose(grown, by_hand, atol=1e-4) and not np.allclose(grown, plain, atol=1e-2)
    assert np.allclose(logits([(110, 80)], load_logits_from_cache=True), first, atol=1e-4)  # not a strict subset


def test_livepeers_client(url: str, picture: Path, disc: tuple[bytes, np.ndarray]) -> None:
    found = ask("livepeer", url, picture)
    full, scores, logits = (np.asarray(json.loads(found[name])) for name in ("masks", "scores", "logits"))
    assert full.shape == (3, 160, 240) and full.dtype == bool and logits.shape == (3, 224, 224)
    assert list(scores) == sorted(scores, reverse=True)
    assert max(pictures.iou(mask, disc[1]) for mask in full) > 0.7
    assert (
        "no model of this name (text of 9 characters) is served here; this endpoint serves disc-finder"
        in found["refused"]
    )


@pytest.mark.parametrize("more", [{"normalize_coords": "false", "box": "[0.28, 0.24, 0.64, 0.77]"}, {"box": BOX[1:-1]}])
def test_livepeers_form(url: str, picture: Path, disc: tuple[bytes, np.ndarray], more: dict[str, str]) -> None:
    with picture.open("rb") as file:
        form = {"multimask_output": "false", **more}
        answer = requests.post(f"{url}/segment-anything-2", files={"image": file}, data=form, headers=AUTH, timeout=60)
    full = np.asarray(json.loads(answer.json()["masks"]))
    assert full.shape == (1, 160, 240) and full.min() < 0 < full.max()  # logits, as they send by default
    assert pictures.iou(full[0] > 0, disc[1]) > 0.8


def test_azure(url: str, photograph: bytes) -> None:
    image = base64.encodebytes(photograph).decode()
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
    data: list[Json] = [[image, *(row.get(name, "") for name in columns[1:4]), False] for row in AZURE_SAMPLE]
    body: dict[str, Json] = {"input_data": {"columns": columns, "index": list(range(5)), "data": data}, "params": {}}
    answer = post(url, "/score", body)
    assert answer.headers["x-answered-by"] == "disc-finder"
    assert [len(row["predictions"]) for row in answer.json()] == [2, 1, 1, 1, 1]
    png = answer.json()[2]["predictions"][0]["mask_per_prediction"][0]["encoded_binary_mask"]
    assert masks.decode(png, "png", (600, 900)).shape == (600, 900)
    other = post(url, "/score?model=sam2/hiera_large", {**body, "params": {"mask_encoding": "rle"}})
    assert other.headers["x-answered-by"] == "second-finder"
    assert [len(row["predictions"]) for row in other.json()] == [2, 1, 1, 1, 1]


def test_mlflows_client(packaged: Path, picture: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path) -> None:
    """It knows of no keys, so this endpoint asks for none; and `--model` takes any MLflow model."""
    port = free_port()
    command = [python(), "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH=str(ROOT)) as base:
        client = ScoringServerClient("127.0.0.1", port)
        client.wait_server_ready(10)
        row = {"image": _base64(picture)["value"], "input_boxes": BOX, "multimask_output": False}
        answer = client.invoke(pd.DataFrame([row]), params={"mask_encoding": "rle"}).get_predictions()
        one = answer["predictions"][0][0]["mask_per_prediction"][0]
        mask = coco.decode({"size": one["size"], "counts": one["encoded_binary_mask"]}) > 0
        assert pictures.iou(mask, disc[1]) > 0.85
        known = requests.get(f"{base}/models", timeout=10).json()
        assert known[0]["name"] == "sam-tiny" and "facebook/sam-vit-large" in known[0]["stands_in_for"]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_of_each_dialect(url: str, disc: tuple[bytes, np.ndarray], orientation: int) -> None:
    """A photograph with an EXIF orientation: Roboflow's routes see it upright, all others stored unless asked."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = pictures.to_bytes(Image.open(io.BytesIO(disc[0])), exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(to_image(disc[1], exif))) > 0
    y, x = (int(side.mean()) for side in np.nonzero(shown))
    image = pictures.to_text(data)
    body_image: Json = {"type": "base64", "value": image}
    flat: Json = {"image": body_image, "point_coords": [[x, y]], "point_labels": [1]}
    points: Json = [{"x": x, "y": y, "positive": True}]
    nested: Json = {"image": body_image, "prompts": [{"points": points}], "format": "rle"}

    def scored(**params: str) -> np.ndarray:
        click = [[[x, y]]] if params else [[[110, 80]]]
        rows: Json = [{"image": image, "input_points": click, "multimask_output": False}]
        body: Json = {"input_data": rows, "params": {"mask_encoding": "rle", **params}}
        (mask,) = post(url, "/score", body).json()[0]["predictions"][0]["mask_per_prediction"]
        return masks.decode(mask["encoded_binary_mask"], "rle", tuple(mask["size"]))

    assert pictures.iou(scored(orientation="upright"), shown) > 0.7
    assert pictures.iou(scored(), disc[1]) > 0.7
    sam2 = post(url, "/sam2/segment_image", nested).json()["predictions"][0]["masks"]
    assert pictures.iou(coco.decode(sam2).astype(bool), shown) > 0.7
    sam = post(url, "/sam/segment_image", flat).json()["masks"]
    assert pictures.iou(filled(sam, shown.shape), shown) > 0.6
    form = {"point_coords": "[[110, 80]]", "point_labels": "[1]", "return_logits": "false"}
    livepeer = requests.post(f"{url}/segment-anything-2", data=form, files={"image": data}, headers=AUTH, timeout=60)
    assert pictures.iou(np.array(json.loads(livepeer.json()["masks"])[0]), disc[1]) > 0.7


def to_image(mask: np.ndarray, exif: Image.Exif) -> Image.Image:
    """Return a mask as an image that has this EXIF data."""
    return Image.open(io.BytesIO(pictures.to_bytes(Image.fromarray(mask.astype(np.uint8) * 255), exif=exif)))


def test_keys_are_tenants(url: str, picture: Path) -> None:
    asked = {"image": _base64(picture), "image_id": "mine alone", **_click()}
    assert post(url, "/sam2/segment_image", asked).status_code == 200
    by_id = {"image_id": "mine alone", **_click()}
    assert post(url, "/sam2/segment_image", by_id).status_code == 200
    other = post(url, "/sam2/segment_image", by_id, key=OTHER_KEY)
    assert other.status_code == 404 and "an unknown id" in other.json()["message"]
    rows = {"dataframe_records": [{"image_id": "mine alone", "input_boxes": BOX}]}
    assert post(url, "/invocations", rows, key=OTHER_KEY).status_code == 404


@pytest.mark.parametrize("positive", ["false", "False", "0", 0, "no"])
def test_roboflows_flags_are_read_as_its_server_reads_them(url: str, picture: Path, positive: Json) -> None:
    def masks_of(value: Json) -> Any:
        points: list[Json] = [{"x": 20, "y": 20, "positive": True}, {"x": 110, "y": 80, "positive": value}]
        body: Json = {"image": _base64(picture), "format": "rle", "prompts": [{"points": points}]}
        return post(url, "/sam2/segment_image", body).json()["predictions"][0]["masks"]

    assert masks_of(positive) == masks_of(False) != masks_of(True)


def metric(url: str, line: str) -> float:
    """A value of `/metrics` by its name and labels; 0 while there is none."""
    found = [one for one in requests.get(f"{url}/metrics", timeout=10).text.splitlines() if one.startswith(line + " ")]
    return float(found[0].split()[-1]) if found else 0.0


def test_a_kept_image_is_neither_decoded_nor_encoded_again(url: str) -> None:
    image = pictures.to_text(pictures.disc(222, 111)[0])
    names = {stage: f'sam_stage_seconds_count{{stage="{stage}"}}' for stage in ("fetch", "decode", "encode", "prompt")}
    counts = [{stage: metric(url, name) for stage, name in names.items()}]
    asked = {"image": {"type": "base64", "value": image}, "image_id": "once", **_click()}
    for body in (asked, asked, {**asked, "image": None}):
        assert post(url, "/sam2/segment_image", body).status_code == 200
        counts.append({stage: metric(url, name) for stage, name in names.items()})
    grown = [{stage: now[stage] - was[stage] for stage in names} for was, now in itertools.pairwise(counts)]
    assert grown[0] == {"fetch": 1, "decode": 1, "encode": 1, "prompt": 1}
    assert grown[1] == grown[2] == {"fetch": 0, "decode": 0, "encode": 0, "prompt": 1}
    assert metric(url, 'sam_requests_total{route="/sam2/segment_image",status="200"}') >= 3
    assert metric(url, "sam_embedding_bytes") > 0 and metric(url, "sam_requests_in_flight") == 0
    assert metric(url, 'sam_model_bytes{model="disc-finder"}') > 1e6


def test_many_clients_of_one_new_image_encode_it_once(url: str) -> None:
    image = pictures.to_text(pictures.disc(321, 123)[0])
    encoded = 'sam_stage_seconds_count{stage="encode"}'
    before = metric(url, encoded)
    start = threading.Barrier(16)

    def ask_for(i: int) -> Any:
        start.wait()
        rows: list[Json] = [{"image": image, "input_points": [[[80 + i, 80]]], "multimask_output": False}]
        return post(url, "/score", {"input_data": rows, "params": {"mask_encoding": "rle"}})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask_for, range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    assert metric(url, encoded) == before + 1
    for i in (0, 15):  # each got its own mask
        alone = ask_alone(url, image, 80 + i)
        assert pictures.tolerant(answers[i].json()) == pictures.tolerant(alone)


def ask_alone(url: str, image: str, x: int) -> Any:
    rows: list[Json] = [{"image": image, "input_points": [[[x, 80]]], "multimask_output": False}]
    return post(url, "/score", {"input_data": rows, "params": {"mask_encoding": "rle"}}).json()


POSITIVE_NULL = {"image": EXAMPLE_PNG, "prompts": [{"points": [{"x": 9, "y": 9, "positive": None}]}]}
WRONG = [
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


@pytest.mark.parametrize(("path", "body", "status", "where", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_errors_in_each_dialects_shape(
    url: str, path: str, body: Any, status: int, where: tuple[str, ...], said: str
) -> None:
    answer = post(url, path, body)
    message: Any = answer.json()
    assert answer.status_code == status, answer.text
    for name in where:
        message = message[name]
    assert said in message and "Traceback" not in answer.text and "/site-packages" not in answer.text
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/score", ("error", "message")),
        ("/invocations", ("message",)),
        ("/sam2/embed_image", ("message",)),
        ("/segment-anything-2", ("detail", "msg")),
    ],
)
def test_wrong_keys_large_bodies_and_no_json(url: str, path: str, where: tuple[str, ...]) -> None:
    def said(answer: requests.Response) -> Any:
        found: Any = answer.json()
        for name in where:
            found = found[name]
        return found

    kind = "multipart/form-data; boundary=x" if path == "/segment-anything-2" else "application/json"
    headers = {**AUTH, "content-type": kind}
    for key in ("", "wrong", KEY + "x"):
        keyed = {**headers, "authorization": f"Bearer {key}"}
        wrong = requests.post(url + path, data=b"{}", headers=keyed, timeout=60)
        assert wrong.status_code == 401 and "an API key is needed" in said(wrong)
    large = requests.post(url + path, data=b"x" * 10_000_000, headers=headers, timeout=60)
    assert large.status_code == 413 and "expected a request body of at most 9,000,000 bytes" in said(large)
    broken = requests.post(url + path, data=b'{"a": [', headers=headers, timeout=60)
    assert broken.status_code == 400 and said(broken)


DEEP = b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
HALF = b'{"image": "\\ud800", "input_data": [{"image": "\\ud800", "input_points": [[1, 2]]}]}'


@pytest.mark.parametrize("body", [DEEP, HALF, b"", b"null", b"[]", b"7", b'"text"', b'{"image": NaN}', b"\xff\xfe"])
@pytest.mark.parametrize(
    "path",
    ["/score", "/invocations", "/sam/embed_image", "/sam/segment_image", "/sam2/embed_image", "/sam2/segment_image"],
)
def test_odd_bodies_are_the_clients_fault(url: str, path: str, body: bytes) -> None:
    answer = requests.post(url + path, data=body, headers={**AUTH, "content-type": "application/json"}, timeout=60)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text and "/site-packages" not in answer.text


def test_too_many_prompts(url: str, picture: Path) -> None:
    prompts = _click()["prompts"]["prompts"] * 51
    answer = post(url, "/sam2/segment_image", {"image": _base64(picture), "prompts": prompts})
    assert answer.status_code == 400 and "at most 50 prompts, got 51" in answer.json()["message"]
    rows: list[Json] = [{"image": _base64(picture)["value"], "input_boxes": [[0, 0, 9, 9]] * 51}]
    answer = post(url, "/score", {"input_data": rows})
    assert "row 0, column 'input_boxes': expected at most 50 prompts, got 51" in answer.json()["error"]["message"]


def test_the_documented_examples_work_as_they_stand(url: str) -> None:
    described = requests.get(f"{url}/openapi.json", timeout=10).json()
    tried = 0
    for path, methods in described["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = [one["value"] for one in content.get("examples", {}).values()]
        for example in [*examples, *([content["example"]] if "example" in content else [])]:
            answer = post(url, path, example)
            assert answer.status_code == 200, (path, answer.text[:500])
            tried += 1
    assert tried >= 5 and requests.get(f"{url}/docs", timeout=10).status_code == 200
