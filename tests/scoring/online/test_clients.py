"""Published clients and documented requests of other systems, sent to the endpoint."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from PIL import ExifTags, Image, ImageDraw, ImageOps
from pycocotools import mask as coco

from sam_endpoint.model import masks
from tests import pictures
from tests.conftest import Json, run_with_clients, serve_endpoint
from tests.model.test_scorer import AZURE_SAMPLE
from tests.scoring.online.endpoint import AUTH, BOX, KEY, base64_image, click_prompt, post


@pytest.fixture(scope="module")
def url(keyed_url: str) -> str:
    """Return the URL of the endpoint with two models and two keys."""
    return keyed_url


def call_client(client: str, url: str, picture: Path) -> Any:
    """Return what a published client returns for an image."""
    return run_with_clients(Path(__file__).with_name("clients.py"), client, url, picture, KEY)


def fill_polygons(polygons: list[Any], size: tuple[int, int]) -> np.ndarray:
    """Return the mask of pixels inside polygons, (height, width) bool."""
    canvas = Image.new("L", size[::-1])
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(pair) for pair in polygon], fill=1)
    return np.asarray(canvas) > 0


def test_roboflows_client_receives_polygons_and_run_lengths(
    url: str, picture: Path, disc: tuple[bytes, np.ndarray]
) -> None:
    results = call_client("roboflow", url, picture)
    for result, count in ((results["polygons"], 2), (results["nothing"], 1)):
        assert len(result["predictions"]) == count and result["time"] > 0
        for prediction in result["predictions"]:
            assert prediction["format"] == "polygon" and 0 <= prediction["confidence"] <= 1
            assert all(len(pair) == 2 for polygon in prediction["masks"] for pair in polygon)
    rle = results["rle"]["predictions"]
    assert [prediction["format"] for prediction in rle] == ["rle", "rle"]
    for prediction in rle:
        assert pictures.iou(coco.decode(prediction["masks"]).astype(bool), disc[1]) > 0.7
    for prediction in results["polygons"]["predictions"]:
        assert pictures.iou(fill_polygons(prediction["masks"], (160, 240)), disc[1]) > 0.7
    assert [len(result["predictions"]) for result in results["many"]] == [1, 1]
    click = results["polygons"]["predictions"][0]
    response = post(
        url, "/sam2/segment_image", {"image": base64_image(picture), "sam2_version_id": "hiera_small"} | click_prompt()
    )
    assert response.json()["predictions"][0]["masks"] == click["masks"]
    assert response.headers["x-answered-by"] == "second-finder"


def test_requests_of_roboflows_documentation_work(url: str, picture: Path, disc: tuple[bytes, np.ndarray]) -> None:
    """The key is in the query or the body, the embedding routes accept prompts, and answers have three forms."""
    body: dict[str, Json] = {"image": base64_image(picture), "image_id": "the disc", "sam_version_id": "vit_h"}
    embedded = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json=body, timeout=60)
    features = np.asarray(embedded.json()["embeddings"])
    assert features.shape == (1, 128, 45, 45) and embedded.json()["time"] > 0
    binary = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json={**body, "format": "binary"}, timeout=60)
    assert binary.headers["content-type"] == "application/octet-stream"
    assert np.allclose(np.load(io.BytesIO(binary.content)), features, atol=1e-5)

    points: dict[str, Json] = {"point_coords": [[110, 80]], "point_labels": [1]}
    with_masks = requests.post(f"{url}/sam/embed_image?api_key={KEY}", json={**body, **points}, timeout=60).json()
    assert pictures.iou(fill_polygons(with_masks["masks"], (160, 240)), disc[1]) > 0.7
    in_body: dict[str, Json] = {"api_key": KEY, "image_id": "the disc", "sam_version_id": "vit_h", **points}
    by_id = requests.post(f"{url}/sam/segment_image", json=in_body, timeout=60).json()
    assert by_id["masks"] == with_masks["masks"] and len(by_id["low_res_masks"]) == 1
    with_embedding = {"embeddings": features.tolist(), "orig_im_size": [160, 240], "sam_version_id": "vit_b", **points}
    by_embedding = post(url, "/sam/segment_image", with_embedding).json()
    assert (
        pictures.iou(fill_polygons(by_embedding["masks"], (160, 240)), fill_polygons(by_id["masks"], (160, 240))) > 0.99
    )
    archive = np.load(io.BytesIO(post(url, "/sam/segment_image", {**in_body, "format": "binary"}).content))
    assert archive["masks"].shape == (1, 160, 240) and archive["low_res_masks"].shape == (1, 180, 180)
    refined = post(url, "/sam/segment_image", {**in_body, "has_mask_input": True}).json()
    assert pictures.iou(fill_polygons(refined["masks"], (160, 240)), fill_polygons(by_id["masks"], (160, 240))) > 0.6

    body = {"image": base64_image(picture), "image_id": "again", "sam2_version_id": "hiera_tiny"}
    embedded = requests.post(f"{url}/sam2/embed_image?api_key={KEY}", json=body, timeout=60).json()
    assert embedded["image_id"] == "again" and embedded["time"] > 0
    flat = requests.post(f"{url}/sam2/embed_image?api_key={KEY}", json={**body, **points}, timeout=60).json()
    assert pictures.iou(fill_polygons(flat["masks"][0], (160, 240)), disc[1]) > 0.7
    unnamed = post(
        url, "/sam2/embed_image", {"image": {"type": "base64", "value": base64_image(picture)["value"]}}
    ).json()
    assert len(unnamed["image_id"]) == 64
    later = post(url, "/sam2/segment_image", {"image_id": unnamed["image_id"], **click_prompt(), "format": "binary"})
    archive = np.load(io.BytesIO(later.content))
    assert archive["masks"].shape == (1, 160, 240) and archive["low_res_masks"].shape == (1, 224, 224)


def test_roboflows_logits_cache_refines_the_largest_earlier_subset_of_a_prompt(url: str, picture: Path) -> None:
    """A prompt starts from the logits of the largest earlier prompt whose clicks are a subset of its own."""
    base: dict[str, Json] = {"image": base64_image(picture), "image_id": "growing", "format": "binary"}

    def logits(clicks: list[tuple[int, int]], **fields: Any) -> np.ndarray:
        prompts = [{"points": [{"x": x, "y": y, "positive": True} for x, y in clicks]}]
        answer = post(url, "/sam2/segment_image", {**base, "prompts": prompts, **fields})
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


def test_livepeers_client_receives_masks_scores_and_logits(
    url: str, picture: Path, disc: tuple[bytes, np.ndarray]
) -> None:
    result = call_client("livepeer", url, picture)
    full, scores, logits = (np.asarray(json.loads(result[name])) for name in ("masks", "scores", "logits"))
    assert full.shape == (3, 160, 240) and full.dtype == bool and logits.shape == (3, 224, 224)
    assert list(scores) == sorted(scores, reverse=True)
    assert max(pictures.iou(mask, disc[1]) for mask in full) > 0.7
    message = "no model of this name (text of 9 characters) is served here; this endpoint serves disc-finder"
    assert message in result["refused"]


@pytest.mark.parametrize(
    "fields", [{"normalize_coords": "false", "box": "[0.28, 0.24, 0.64, 0.77]"}, {"box": BOX[1:-1]}]
)
def test_livepeers_form_accepts_boxes_in_pixels_or_normalized(
    url: str, picture: Path, disc: tuple[bytes, np.ndarray], fields: dict[str, str]
) -> None:
    with picture.open("rb") as file:
        form = {"multimask_output": "false", **fields}
        answer = requests.post(f"{url}/segment-anything-2", files={"image": file}, data=form, headers=AUTH, timeout=60)
    full = np.asarray(json.loads(answer.json()["masks"]))
    assert full.shape == (1, 160, 240) and full.min() < 0 < full.max()  # logits, the default
    assert pictures.iou(full[0] > 0, disc[1]) > 0.8


def test_azures_sample_is_scored_by_the_selected_model(url: str, photograph: bytes) -> None:
    image = base64.encodebytes(photograph).decode()
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
    data: list[Json] = [[image, *(row.get(name, "") for name in columns[1:4]), False] for row in AZURE_SAMPLE]
    body: dict[str, Json] = {"input_data": {"columns": columns, "index": list(range(5)), "data": data}, "params": {}}
    answer = post(url, "/score", body)
    assert answer.headers["x-answered-by"] == "disc-finder"
    assert [len(row["predictions"]) for row in answer.json()] == [2, 1, 1, 1, 1]
    png = answer.json()[2]["predictions"][0]["mask_per_prediction"][0]["encoded_binary_mask"]
    assert masks.decode(png, "png", (600, 900)).shape == (600, 900)
    second_answer = post(url, "/score?model=sam2/hiera_large", {**body, "params": {"mask_encoding": "rle"}})
    assert second_answer.headers["x-answered-by"] == "second-finder"
    assert [len(row["predictions"]) for row in second_answer.json()] == [2, 1, 1, 1, 1]


def test_mlflows_client_receives_predictions(
    packaged: Path, picture: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    """MLflow's client cannot send a key, so this endpoint has no keys. The option --model accepts any MLflow model."""
    with serve_endpoint(tmp_path / "log", "--model", packaged) as base:
        client = ScoringServerClient("127.0.0.1", int(base.rpartition(":")[2]))
        client.wait_server_ready(10)
        row = {"image": base64_image(picture)["value"], "input_boxes": BOX, "multimask_output": False}
        answer = client.invoke(pd.DataFrame([row]), params={"mask_encoding": "rle"}).get_predictions()
        encoded = answer["predictions"][0][0]["mask_per_prediction"][0]
        mask = coco.decode({"size": encoded["size"], "counts": encoded["encoded_binary_mask"]}) > 0
        assert pictures.iou(mask, disc[1]) > 0.85
        models = requests.get(f"{base}/models", timeout=10).json()
        assert models[0]["name"] == "sam-tiny" and "facebook/sam-vit-large" in models[0]["stands_in_for"]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_roboflows_routes_see_images_upright_and_other_routes_as_stored(
    url: str, disc: tuple[bytes, np.ndarray], orientation: int
) -> None:
    """The param `orientation` of a request overrides this default."""
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
    assert pictures.iou(fill_polygons(sam, shown.shape), shown) > 0.6
    form = {"point_coords": "[[110, 80]]", "point_labels": "[1]", "return_logits": "false"}
    livepeer = requests.post(f"{url}/segment-anything-2", data=form, files={"image": data}, headers=AUTH, timeout=60)
    assert pictures.iou(np.array(json.loads(livepeer.json()["masks"])[0]), disc[1]) > 0.7


def to_image(mask: np.ndarray, exif: Image.Exif) -> Image.Image:
    """Return a mask as an image with EXIF data."""
    return Image.open(io.BytesIO(pictures.to_bytes(Image.fromarray(mask.astype(np.uint8) * 255), exif=exif)))


@pytest.mark.parametrize("positive", ["false", "False", "0", 0, "no"])
def test_roboflows_flags_have_the_meaning_of_roboflows_server(url: str, picture: Path, positive: Json) -> None:
    def masks_of(value: Json) -> Any:
        points: list[Json] = [{"x": 20, "y": 20, "positive": True}, {"x": 110, "y": 80, "positive": value}]
        body: Json = {"image": base64_image(picture), "format": "rle", "prompts": [{"points": points}]}
        return post(url, "/sam2/segment_image", body).json()["predictions"][0]["masks"]

    assert masks_of(positive) == masks_of(False) != masks_of(True)


def test_all_examples_in_the_openapi_description_work(url: str) -> None:
    described = requests.get(f"{url}/openapi.json", timeout=10).json()
    tried = 0
    for path, methods in described["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = [example["value"] for example in content.get("examples", {}).values()]
        for example in [*examples, *([content["example"]] if "example" in content else [])]:
            answer = post(url, path.replace("{model}", "disc-finder"), example)
            # X-AnyLabeling's errors have status 200.
            assert answer.status_code == 200 and '"success":false' not in answer.text, (path, answer.text[:500])
            tried += 1
    assert tried >= 5 and requests.get(f"{url}/docs", timeout=10).status_code == 200
