"""Roboflow's routes for SAM 3: with the embedded model, with a packaged detector, and with a SAM 3."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
import yaml
from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.model.mlflow import package
from tests import checkpoints, pictures
from tests.coins import COINS, PICTURE, match
from tests.conftest import run_with_clients, serve_endpoint
from tests.detectors import owl
from tests.scoring.online.endpoint import AUTH, KEY, metric, post

ENCODINGS = 'sam_stage_seconds_count{stage="encode"}'
CLIENTS = Path(__file__).with_name("clients.py")
COIN = {"x": 243, "y": 95, "width": 55, "height": 50}
SHOWN = [{"type": "visual", "boxes": [COIN]}]
TEXTS = ["cups", "spoon", "table", "order", "a spotted dog"]


@pytest.fixture(scope="module")
def url(packaged: Path, sam_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with the embedded model, which answers by default, and a model with a detector."""
    folder = tmp_path_factory.mktemp("embedded")
    torch.manual_seed(0)
    owl(folder / "owl")
    package.save(sam_folder, folder / "texts", {"concept_thresh": 0.0}, detector=folder / "owl")
    package.save(package.EMBEDDED, folder / "coins", {"points_per_side": 16})
    models = {
        "coins": {"model": str(folder / "coins"), "stands_in_for": ["sam3/sam3_final"]},
        "texts": {"model": str(folder / "texts"), "warm": True},
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"default": "coins", "models": models}))
    options = ["--catalog", folder / "catalog.yaml", "--api-keys", KEY, "--public-metrics", "true"]
    with serve_endpoint(folder / "log", *options, "--concepts", "20") as url:
        yield url


@pytest.fixture(scope="module")
def sam3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with a small SAM 3."""
    folder = tmp_path_factory.mktemp("sam3")
    package.save(checkpoints.SAVERS["sam3_video"](folder / "weights"), folder / "model", {"concept_thresh": 0.0})
    options = ["--model", folder / "model", "--api-keys", KEY, "--public-metrics", "true"]
    with serve_endpoint(folder / "log", *options) as url:
        yield url


def coins(note: bytes = b"") -> dict[str, str]:
    """Return the picture of coins. A note after its end makes it another image, with an embedding of its own."""
    return {"type": "base64", "value": pictures.to_text(PICTURE.read_bytes() + note)}


def boxes(predictions: list[Any]) -> list[list[float]]:
    """Return the boxes x, y, width, height of predictions with run lengths."""
    return [coco.toBbox(prediction["masks"]).tolist() for prediction in predictions]


def test_the_client_finds_coins_by_example_with_the_embedded_model(url: str) -> None:
    results = run_with_clients(CLIENTS, "sam3", url, PICTURE, KEY)
    (shown,) = results["shown"]["prompt_results"]
    echo = {"prompt_index": 0, "type": "visual", "text": None, "num_boxes": 1}
    assert shown["prompt_index"] == 0 and shown["echo"] == echo and results["shown"]["time"] > 0
    assert {prediction["format"] for prediction in shown["predictions"]} == {"polygon"}
    scores = [prediction["confidence"] for prediction in shown["predictions"]]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0.9
    for result in (*results["many"], *results["batch"], results["async"][0]):
        found = match(boxes(result["prompt_results"][0]["predictions"]))
        assert len(found) == len(set(found)) == len(scores) >= 20 and None not in found
    by_supervision = results["shown by supervision"]
    assert by_supervision["class_id"] == [0] * len(scores)
    assert by_supervision["confidence"] == pytest.approx(scores)
    found = match([(x1, y1, x2 - x1 + 1, y2 - y1 + 1) for x1, y1, x2, y2 in by_supervision["xyxy"]])
    assert len(set(found)) == len(scores) and None not in found
    status, message = results["texts"]
    assert status == 400 and message.startswith("column 'prompts[0].text': expected a model that takes text")
    assert "add --detector IDEA-Research/grounding-dino-tiny to `sam-endpoint package`" in message


def test_the_client_clicks_and_embeds_with_the_embedded_model(url: str) -> None:
    results = run_with_clients(CLIENTS, "sam3", url, PICTURE, KEY)
    (clicked,) = results["clicked"]["predictions"]
    assert clicked["format"] == "polygon" and clicked["confidence"] > 0.8
    corners = np.concatenate([np.asarray(polygon) for polygon in clicked["masks"]])
    assert match([[*corners.min(0).tolist(), *np.ptp(corners, axis=0).tolist()]]) == [10]
    assert len(results["nothing"]["predictions"]) == 1
    for result in results["async"][1]:
        assert match(boxes(result["predictions"])) == [10]
    assert results["embedded"]["image_id"] == "coins" and results["embedded"]["time"] >= 0
    assert [result["image_id"] for result in results["async"][2]] == ["coins", "coins"]
    names = [result["image_id"] for result in results["embedded batch"]]
    assert names[0] == names[1] and len(names[0]) == 64


def test_the_client_finds_texts_with_a_sam3(sam3_url: str) -> None:
    results = run_with_clients(CLIENTS, "sam3", sam3_url, PICTURE, KEY)
    texts = results["texts"]["prompt_results"]
    assert [result["echo"]["text"] for result in texts] == ["cups", "spoon"]
    assert [result["echo"]["type"] for result in texts] == ["text", "text"]
    assert texts[0]["predictions"] and all(len(result["predictions"]) <= 20 for result in texts)
    assert all(prediction["confidence"] >= 0.1 for prediction in texts[1]["predictions"])
    by_supervision = results["texts by supervision"]
    indices = [
        result["prompt_index"] for result in texts for prediction in result["predictions"] if prediction["masks"]
    ]
    assert by_supervision["class_id"] == indices
    assert len(results["clicked"]["predictions"]) == len(results["nothing"]["predictions"]) == 1


def test_five_texts_and_two_clicks_on_one_image_are_one_encoding(url: str, sam3_url: str) -> None:
    for base, model, note in ((sam3_url, "sam3/sam3_final", b"1"), (url, "texts", b"2")):
        before = metric(base, ENCODINGS)
        body: dict[str, Any] = {"model_id": model, "image": coins(note), "image_id": f"five {model}"}
        prompts: Any = [{"type": "text", "text": text} for text in TEXTS]
        answer = post(base, "/sam3/concept_segment", {**body, "prompts": prompts, "output_prob_thresh": 0})
        assert answer.status_code == 200, answer.text
        assert all(result["predictions"] for result in answer.json()["prompt_results"])
        del body["image"]
        for x in (268, 40):
            click: Any = [{"points": [{"x": x, "y": 120, "positive": True}]}]
            assert post(base, "/sam3/visual_segment", {**body, "prompts": click}).status_code == 200
        rows: Any = [{"image_id": body["image_id"], "input_points": [[40, 200]]}]
        assert post(base, f"/score?model={model}", {"input_data": rows}).status_code == 200
        assert metric(base, ENCODINGS) - before == 1


def test_an_embedded_image_is_found_by_its_id_unless_the_detector_needs_its_pixels(url: str, sam3_url: str) -> None:
    text: Any = [{"type": "text", "text": "cups"}]
    for base, model, prompts in (
        (sam3_url, "sam3/sam3_final", text),
        (url, "sam3/sam3_final", SHOWN),
        (url, "texts", text),
    ):
        before = metric(base, ENCODINGS)
        body: dict[str, Any] = {"model_id": model, "image_id": f"id {model}", "prompts": prompts}
        assert post(base, "/sam3/embed_image", {**body, "image": coins(b"3")}).status_code == 200
        answer = post(base, "/sam3/concept_segment", body)
        if model == "texts":
            assert answer.status_code == 400
            assert "expected the image itself, because the detector of this model needs" in answer.json()["message"]
            answer = post(base, "/sam3/concept_segment", {**body, "image": coins(b"3")})
        assert answer.status_code == 200, answer.text
        assert metric(base, ENCODINGS) - before == 1


def test_each_prompt_has_its_own_threshold_and_nms_removes_duplicates_across_prompts(sam3_url: str) -> None:
    def scores(*thresholds: float | None, **fields: Any) -> list[list[float]]:
        prompts = [{"type": "text", "text": "cups", "output_prob_thresh": threshold} for threshold in thresholds]
        body: Any = {"image": coins(), "prompts": prompts, "output_prob_thresh": 0.0, "format": "rle", **fields}
        results = post(sam3_url, "/sam3/concept_segment", body).json()["prompt_results"]
        return [[prediction["confidence"] for prediction in result["predictions"]] for result in results]

    everything, again = scores(None, None)
    assert len(everything) == 20 and again == pytest.approx(everything, abs=1e-5)
    middle = (everything[9] + everything[10]) / 2
    for few, many in (scores(middle, None), scores(None, 0.0, output_prob_thresh=middle)):
        assert few == pytest.approx(everything[:10], abs=1e-5) and many == pytest.approx(everything, abs=1e-5)
    distinct = len(scores(None, nms_iou_threshold=0.9)[0])
    first, second = scores(None, None, nms_iou_threshold=0.9)
    assert 0 < distinct == len(first) + len(second) <= 20
    # An instance below the threshold of its own prompt removes no instance of another prompt.
    assert list(map(len, scores(1.0, None, nms_iou_threshold=0.9))) == [0, distinct]


def test_all_formats_are_the_same_masks(url: str) -> None:
    def predictions(mask_format: str) -> Any:
        body: Any = {"image": coins(), "prompts": SHOWN, "format": mask_format}
        return post(url, "/sam3/concept_segment", body).json()["prompt_results"][0]["predictions"]

    by_polygon, by_json, by_rle = (predictions(mask_format) for mask_format in ("polygon", "json", "rle"))
    assert by_json == by_polygon
    for polygons, rle in zip(by_polygon, by_rle, strict=True):
        assert (polygons["format"], rle["format"]) == ("polygon", "rle") and rle["masks"]["size"] == [303, 384]
        flat = [[number for pair in polygon for number in pair] for polygon in polygons["masks"]]
        filled = coco.decode(coco.merge(coco.frPyObjects(flat, 303, 384))).astype(bool)
        assert pictures.iou(filled, coco.decode(rle["masks"]).astype(bool)) > 0.97
    click: Any = [{"points": [{"x": 268, "y": 120, "positive": True}]}]
    archive = np.load(
        io.BytesIO(post(url, "/sam3/visual_segment", {"image": coins(), "prompts": click, "format": "binary"}).content)
    )
    assert archive["masks"].shape == (1, 303, 384)


def test_a_counter_example_and_a_box_by_its_corners(url: str) -> None:
    corners = dict(zip(("x0", "y0", "x1", "y1"), COINS[10].tolist(), strict=True))

    def found(**prompt: Any) -> list[int | None]:
        body: Any = {"image": coins(), "prompts": [prompt], "format": "rle"}
        return match(boxes(post(url, "/sam3/concept_segment", body).json()["prompt_results"][0]["predictions"]))

    alone = found(boxes=[corners])
    assert set(alone) == set(found(boxes=[COIN], box_labels=[True], text=""))
    x, y, x2, y2 = COINS[alone[-1] or 0].tolist()
    other = {"x": x, "y": y, "width": x2 - x, "height": y2 - y}
    fewer = found(boxes=[corners, other], box_labels=[1, 0])
    assert set(fewer) < set(alone) and alone[-1] not in fewer


WRONG_VALUES: dict[str, tuple[list[Any], str]] = {
    "no prompts": ([], "column 'prompts': expected 1 to 16 prompts, got none"),
    "an empty prompt": ([{}], "column 'prompts[0]': expected a text, boxes around examples, or both, got neither"),
    "an empty text": ([{"text": ""}], "column 'prompts[0].text': expected a text with at least one letter, digit"),
    "200 texts": ([{"text": "cup"}] * 200, "column 'prompts': expected at most 16 prompts, got 200"),
    "a long text": (
        [{"text": "x" * 10_000}],
        "column 'prompts[0].text': expected a text of at most 200 characters, got text of 10000 characters",
    ),
    "a surrogate": (
        [{"text": "\ud800"}],
        "expected a JSON body in UTF-8, got another encoding or an unpaired surrogate",
    ),
    "only marks": ([{"text": "\u0301\u200d"}], "expected a text with at least one letter, digit or symbol"),
    "half a box": ([{"boxes": [{"x": 1}]}], "column 'prompts[0].boxes[0]': expected numbers x, y, width, height"),
    "an empty box": (
        [{"boxes": [{**COIN, "width": 0}]}],
        "column 'prompts[0].boxes': expected x1,y1,x2,y2 with x2 > x1 and y2 > y1",
    ),
    "a box outside": (
        [{"boxes": [{**COIN, "x": 5000}]}],
        "column 'boxes': expected boxes inside the image of 384 x 303 pixels, got a box outside",
    ),
    "labels that do not match": (
        [*SHOWN, {"boxes": [COIN], "box_labels": [1, 0]}],
        "column 'prompts[1].box_labels': expected 1 labels, one per box of input_exemplars, got 2 labels",
    ),
    "an unknown label": (
        [{"boxes": [COIN], "box_labels": [2]}],
        "column 'prompts[0].box_labels': expected (n,) labels",
    ),
    "only a counter-example": (
        [{"boxes": [COIN], "box_labels": [0]}],
        "column 'prompts[0].box_labels': expected at least one example (label 1)",
    ),
    "a threshold above 1": (
        [{**SHOWN[0], "output_prob_thresh": 3}],
        "column 'prompts[0].output_prob_thresh': expected a number from 0 to 1, got the number 3",
    ),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_wrong_values_get_400_and_the_place(url: str, case: str) -> None:
    prompts, message = WRONG_VALUES[case]
    body = json.dumps({"image": coins(), "prompts": prompts})
    answer = requests.post(f"{url}/sam3/concept_segment", body, headers=AUTH, timeout=60)
    assert answer.status_code == 400 and list(answer.json()) == ["message"]
    assert message in answer.json()["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": None},
        {"prompts": "cup"},
        {"prompts": [{"text": 5}]},
        {"prompts": [{"boxes": [[1, 2, 3, 4]]}]},
        {"prompts": [{"boxes": [COIN], "box_labels": ["x"]}]},
        {"prompts": SHOWN, "format": "png"},
        {"prompts": SHOWN, "output_prob_thresh": "high"},
        {"prompts": SHOWN, "image": 5},
    ],
)
def test_wrong_types_get_422(url: str, fields: dict[str, Any]) -> None:
    answer = post(url, "/sam3/concept_segment", {"image": coins(), **fields})
    assert answer.status_code == 422 and list(answer.json()) == ["message"], answer.text


def test_other_errors_have_roboflows_form(url: str) -> None:
    shown: dict[str, Any] = {"prompts": SHOWN}
    expected: list[tuple[dict[str, Any], int, str]] = [
        ({**shown}, 400, "expected an image, or the image_id of a cached image, got neither"),
        ({**shown, "image_id": "never sent"}, 404, "column 'image_id': expected the id of a cached image"),
        ({**shown, "image": coins(), "model_id": "sam3/other"}, 404, "no model of this name"),
        ({**shown, "image": {"type": "numpy", "value": "x"}}, 400, "a numpy image is a pickle"),
        (
            {**shown, "image": []},
            400,
            "column 'image': expected an image, or a list of at least one, got an empty list",
        ),
        ({**shown, "image": [coins(), {"type": "base64", "value": "?"}]}, 400, "column 'image[1]': expected"),
        ({**shown, "image": [coins(), coins()], "image_id": "two"}, 400, "expected no image_id beside several images"),
        ({"image": coins(), "prompts": [{"text": "a" * 60}], "model_id": "texts"}, 400, "a text of at most 16 tokens"),
        (
            {"image": coins(), "prompts": [{"text": "cup", "boxes": [COIN]}], "model_id": "texts"},
            400,
            "column 'prompts[0].boxes': expected either input_text or input_exemplars, because",
        ),
        (
            {"image": [coins()] * 3, "prompts": [{"text": "cup"}] * 7, "model_id": "texts"},
            400,
            "expected at most 20 texts and other concepts in all rows of a request, got 21: send several requests",
        ),
    ]
    for body, status, message in expected:
        answer = post(url, "/sam3/concept_segment", body)
        assert answer.status_code == status and list(answer.json()) == ["message"], answer.text
        assert message in answer.json()["message"]
    assert post(url, "/sam3/concept_segment", shown, key="wrong").status_code == 401
    large = requests.post(f"{url}/sam3/embed_image", b" " * (33 * 2**20), headers=AUTH, timeout=60)
    assert large.status_code == 413 and list(large.json()) == ["message"]


def test_texts_are_refused_before_any_work_if_their_masks_would_exceed_the_memory(tmp_path: Path) -> None:
    weights = checkpoints.SAVERS["sam3_video"](tmp_path / "weights")
    package.save(weights, tmp_path / "model", {"concept_thresh": 0.0})
    with serve_endpoint(
        tmp_path / "log", "--model", tmp_path / "model", "--memory", "2000000", "--public-metrics", "true"
    ) as url:
        body: dict[str, Any] = {"image": coins(), "prompts": [{"text": "cup"}] * 16}
        answer = post(url, "/sam3/concept_segment", body)
        assert answer.status_code == 400 and "expected a request that needs at most 2,000,000 bytes" in answer.text
        assert metric(url, 'sam_stage_seconds_count{stage="detect"}') == 0
        rows: Any = [{"image": coins()["value"], "input_text": ["cup"] * 16}]
        assert post(url, "/score", {"input_data": rows}).status_code == 400
        body["prompts"] = body["prompts"][:1]
        assert post(url, "/sam3/concept_segment", body).status_code == 200


def test_roboflows_sam3_routes_see_images_upright(sam3_url: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pictures.to_bytes(Image.open(PICTURE).convert("RGB"), exif=exif)
    image = {"type": "base64", "value": pictures.to_text(turned)}
    body: Any = {"image": image, "prompts": [{"text": "cups"}], "output_prob_thresh": 0, "format": "rle"}
    (result,) = post(sam3_url, "/sam3/concept_segment", body).json()["prompt_results"]
    assert {tuple(prediction["masks"]["size"]) for prediction in result["predictions"]} == {(384, 303)}
