"""The table contract of a model that MLflow loaded: columns, params, answers and errors."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from sam_endpoint.model import masks
from tests import pictures

BOX = "[[68, 38, 153, 123]]"
CLICK = "[[[110, 80]]]"
MASK_KEYS = {"encoded_binary_mask", "iou_score", "size", "bbox", "area"}


@pytest.fixture(scope="module")
def picture(disc: tuple[bytes, np.ndarray]) -> str:
    """Return the image of the disc as base64 text."""
    return pictures.to_text(disc[0])


def frame(*rows: dict[str, Any], index: list[Any] | None = None) -> pd.DataFrame:
    """Return a table of rows, each a dict from column names to cells."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}).set_axis(
        index or range(len(rows))
    )


def test_a_box_returns_the_mask_of_the_disc(pyfunc: Any, disc: tuple[bytes, np.ndarray]) -> None:
    data, truth = disc
    answer = pyfunc.predict(frame({"image": data, "input_boxes": BOX, "multimask_output": False}))
    assert list(answer.columns) == ["predictions", "image_id", "error"]
    (prediction,) = answer["predictions"][0]
    (mask,) = prediction["mask_per_prediction"]
    assert set(mask) == MASK_KEYS and mask["size"] == [160, 240]
    assert pictures.iou(masks.decode(mask["encoded_binary_mask"], "png", (160, 240)), truth) > 0.85
    assert 0.7 < mask["iou_score"] < 1.1
    assert answer["error"][0] is None and len(answer["image_id"][0]) == 64


@pytest.mark.parametrize(
    ("multimask", "count"),
    [
        (True, 3),
        (False, 1),
        (None, 3),
        ("false", 1),
        ("True", 3),
        (0, 1),
        ("0", 1),
        ("1", 3),
        ("0.0", 1),
        (float("nan"), 3),
    ],
)
def test_multimask_output_sets_the_number_of_masks(pyfunc: Any, picture: str, multimask: object, count: int) -> None:
    answer = pyfunc.predict(frame({"image": picture, "input_boxes": BOX, "multimask_output": multimask}))
    assert [len(prediction["mask_per_prediction"]) for prediction in answer["predictions"][0]] == [count]


def test_returns_three_masks_without_multimask_output(pyfunc: Any, picture: str) -> None:
    answer = pyfunc.predict(frame({"image": picture, "input_boxes": BOX}))
    assert len(answer["predictions"][0][0]["mask_per_prediction"]) == 3


def test_answers_have_the_order_and_index_of_the_rows(pyfunc: Any, picture: str) -> None:
    boxes = [[[68, 38, 153, 123]], [[0, 0, 50, 50], [5, 5, 90, 90]], [[60, 30, 160, 130]]]
    rows = frame(*({"image": picture, "input_boxes": box} for box in boxes), index=["c", "a", "b"])
    answer = pyfunc.predict(rows)
    assert list(answer.index) == ["c", "a", "b"]
    assert [len(row) for row in answer["predictions"]] == [1, 2, 1]
    alone = pyfunc.predict(rows.loc[["b"]])
    assert pictures.tolerant(alone["predictions"].iloc[0]) == pictures.tolerant(answer["predictions"]["b"])


@pytest.mark.parametrize("encoding", ["png", "rle", "polygon"])
def test_all_encodings_contain_the_same_mask(pyfunc: Any, picture: str, encoding: str) -> None:
    rows = frame({"image": picture, "input_boxes": BOX, "multimask_output": False})
    decoded = {}
    for name in ("png", encoding):
        (mask,) = pyfunc.predict(rows, params={"mask_encoding": name})["predictions"][0][0]["mask_per_prediction"]
        decoded[name] = masks.decode(mask["encoded_binary_mask"], name, tuple(mask["size"]))
    assert pictures.iou(decoded["png"], decoded[encoding]) >= (0.98 if encoding == "polygon" else 1.0)


def test_response_format_azureml_has_the_columns_of_azures_models(pyfunc: Any, picture: str) -> None:
    answer = pyfunc.predict(frame({"image": picture, "input_boxes": BOX}), params={"response_format": "azureml"})
    assert list(answer.columns) == ["response"]
    (prediction,) = answer["response"][0]["predictions"]
    assert [set(mask) for mask in prediction["masks_per_prediction"]] == [{"encoded_binary_mask", "iou_score"}] * 3


def test_returned_logits_can_be_sent_as_mask_input(pyfunc: Any, picture: str) -> None:
    first = pyfunc.predict(frame({"image": picture, "input_points": CLICK}), params={"return_logits": True})
    best = max(first["predictions"][0][0]["mask_per_prediction"], key=lambda mask: mask["iou_score"])
    rows = frame(
        {"image": picture, "input_points": CLICK, "mask_input": best["low_res_logits"], "multimask_output": False}
    )
    (refined,) = pyfunc.predict(rows)["predictions"][0][0]["mask_per_prediction"]
    first_mask, refined_mask = (
        masks.decode(mask["encoded_binary_mask"], "png", (160, 240)) for mask in (best, refined)
    )
    assert pictures.iou(first_mask, refined_mask) > 0.7


def test_an_image_id_replaces_the_image(pyfunc: Any, picture: str) -> None:
    named = frame({"image": picture, "image_id": "cup", "input_boxes": BOX}, {"image_id": "cup", "input_boxes": BOX})
    first = pyfunc.predict(named)
    assert list(first["image_id"]) == ["cup", "cup"]
    once, twice = pictures.tolerant(first["predictions"].tolist())
    assert once == twice
    later = pyfunc.predict(frame({"image_id": "cup", "input_boxes": BOX}))
    assert pictures.tolerant(later["predictions"][0]) == once
    by_hash = pyfunc.predict(frame({"image": picture, "input_boxes": BOX}))["image_id"][0]
    by_hash_only = pyfunc.predict(frame({"image_id": by_hash, "input_boxes": BOX}))
    assert pictures.tolerant(by_hash_only["predictions"][0]) == once


def test_a_repeated_image_id_names_the_latest_image(pyfunc: Any, picture: str) -> None:
    second_picture = pictures.to_text(pictures.disc(200, 150)[0])
    rows = frame(
        {"image": picture, "image_id": "x", "input_boxes": BOX},
        {"image_id": "x", "input_boxes": BOX},
        {"image": second_picture, "image_id": "x", "input_boxes": BOX},
        {"image_id": "x", "input_boxes": BOX},
    )
    answer = pyfunc.predict(rows)
    sizes = [row[0]["mask_per_prediction"][0]["size"] for row in answer["predictions"]]
    assert sizes == [[160, 240], [160, 240], [150, 200], [150, 200]]
    later = pyfunc.predict(frame({"image_id": "x", "input_boxes": BOX}))
    assert later["predictions"][0][0]["mask_per_prediction"][0]["size"] == [150, 200]


LOOSE = {"points_per_side": 6, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}


@pytest.mark.parametrize("encoding", ["png", "rle", "polygon"])
def test_a_row_without_prompts_returns_every_object_the_best_first(
    pyfunc: Any, disc: tuple[bytes, np.ndarray], encoding: str
) -> None:
    data, truth = disc
    rows = frame({"image": data}, {"image": data, "input_boxes": BOX}, {"image": data, "input_points": ""})
    answer = pyfunc.predict(rows, params={**LOOSE, "mask_encoding": encoding})
    objects = [prediction["mask_per_prediction"] for prediction in answer["predictions"][0]]
    assert len(objects) >= 2 and all(len(masks_of) == 1 for masks_of in objects)
    assert all(set(mask) == MASK_KEYS and mask["size"] == [160, 240] for (mask,) in objects)
    scores = [mask["iou_score"] for (mask,) in objects]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0.5
    decoded = [masks.decode(mask["encoded_binary_mask"], encoding, (160, 240)) for (mask,) in objects]
    assert max(pictures.iou(mask, truth) for mask in decoded) > 0.85
    assert len(answer["predictions"][1]) == 1 and answer["predictions"][2] == answer["predictions"][0]


@pytest.mark.parametrize("column", ["input_boxes", "input_points", "mask_input"])
@pytest.mark.parametrize("empty", [[], "[]", " [ ]", np.zeros((0, 4), np.float32), ()], ids=repr)
def test_an_empty_list_of_prompts_returns_no_predictions(pyfunc: Any, picture: str, column: str, empty: object) -> None:
    answer = pyfunc.predict(frame({"image": picture, column: empty}), params=LOOSE)
    assert answer["predictions"][0] == [] and answer["error"][0] is None and len(answer["image_id"][0]) == 64


def test_an_empty_list_next_to_other_prompts_is_ignored(pyfunc: Any, picture: str) -> None:
    rows = frame({"image": picture, "input_boxes": BOX, "input_points": [], "input_labels": "[]"})
    assert len(pyfunc.predict(rows)["predictions"][0]) == 1


@pytest.mark.parametrize("image_id", [7, 7.0, np.int64(7), np.float32(7), "7"], ids=repr)
def test_a_whole_number_is_an_image_id(pyfunc: Any, picture: str, image_id: object) -> None:
    pyfunc.predict(frame({"image": picture, "image_id": image_id, "input_boxes": BOX}))
    assert pyfunc.predict(frame({"image_id": "7", "input_boxes": BOX}))["image_id"][0] == "7"


@pytest.mark.parametrize("image_id", [7.5, True, {"a": 1}, b"a"], ids=repr)
def test_rejects_other_values_as_image_id(pyfunc: Any, picture: str, image_id: object) -> None:
    answer = pyfunc.predict(frame({"image": picture, "image_id": image_id}), params={"on_error": "record"})
    assert "column 'image_id': expected text of at most 512 characters, or a whole number" in answer["error"][0]


def test_orientation_upright_rotates_the_image_and_its_masks(pyfunc: Any) -> None:
    """The photograph is stored as 240 x 160 pixels and shown as 160 x 240."""
    stored, truth = pictures.disc(240, 160)
    photo = Image.open(io.BytesIO(stored))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = pictures.to_bytes(photo, "PNG", exif=exif)
    upright_truth = np.rot90(truth, -1)
    rows, columns = np.nonzero(upright_truth)
    box = [[int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]]
    row = {"image": data, "input_boxes": box, "multimask_output": False}
    as_shown = pyfunc.predict(frame(row), params={"orientation": "upright", "mask_encoding": "rle"})
    mask = as_shown["predictions"][0][0]["mask_per_prediction"][0]
    assert mask["size"] == [240, 160]
    assert pictures.iou(masks.decode(mask["encoded_binary_mask"], "rle", (240, 160)), upright_truth) > 0.85
    as_stored = pyfunc.predict(frame({"image": data, "input_boxes": BOX}))
    assert as_stored["predictions"][0][0]["mask_per_prediction"][0]["size"] == [160, 240]
    assert as_stored["image_id"][0] != as_shown["image_id"][0]
    by_id = pyfunc.predict(frame({"image_id": as_shown["image_id"][0], "input_boxes": box}))
    assert by_id["predictions"][0][0]["mask_per_prediction"][0]["size"] == [240, 160]
    plain = pyfunc.predict(frame({"image": stored}), params={"orientation": "upright", **LOOSE})
    assert plain["image_id"][0] == pyfunc.predict(frame({"image": stored, "input_boxes": BOX}))["image_id"][0]


def test_segments_everything_of_a_cached_image(pyfunc: Any, picture: str) -> None:
    whole = pyfunc.predict(frame({"image": picture, "image_id": "all of it"}), params=LOOSE)
    by_id = pyfunc.predict(frame({"image_id": "all of it"}), params={**LOOSE, "return_logits": True})
    logits = [prediction["mask_per_prediction"][0].pop("low_res_logits") for prediction in by_id["predictions"][0]]
    assert pictures.tolerant(by_id["predictions"][0]) == pictures.tolerant(whole["predictions"][0])
    assert all(np.load(io.BytesIO(base64.b64decode(text))).shape == (180, 180) for text in logits)


def test_crops_need_the_image_unless_their_embeddings_are_cached(pyfunc: Any, picture: str) -> None:
    layers = {**LOOSE, "crop_n_layers": 1, "on_error": "record"}
    other_row = {"image": pictures.disc(220, 150)[0], "image_id": "never in parts", "input_boxes": BOX}
    pyfunc.predict(frame(other_row))
    rows = frame({"image_id": "never in parts"}, {"image_id": "never in parts", "input_boxes": BOX})
    answer = pyfunc.predict(rows, params=layers)
    assert "row 0, column 'image': expected the image itself, because crop_n_layers" in answer["error"][0]
    assert answer["error"][1] is None and len(answer["predictions"][1]) == 1
    whole = pyfunc.predict(frame({"image": picture, "image_id": "in parts"}), params=layers)
    assert whole["error"][0] is None and len(whole["predictions"][0]) >= 2
    by_id = pyfunc.predict(frame({"image_id": "in parts"}), params=layers)
    assert pictures.tolerant(by_id["predictions"][0]) == pictures.tolerant(whole["predictions"][0])


BAD_ROWS = [
    ({"image": "hello, world", "input_boxes": BOX}, "row 0, column 'image': expected base64 text"),
    ({"image": base64.b64encode(b"no image").decode(), "input_boxes": BOX}, "8 bytes of no known image format"),
    ({"image": 7, "input_boxes": BOX}, "the number 7"),
    ({"image": None, "input_boxes": BOX}, "got nothing"),
    ({"image": "file:///etc/passwd", "input_boxes": BOX}, "scheme 'file'"),
    ({"input_boxes": "[[1, 2"}, "row 0, column 'input_boxes': expected (prompts, 4) numbers"),
    ({"input_boxes": "[[5, 5, 2, 9]]"}, "x2 > x1 and y2 > y1, got a box 5,5,2,9"),
    ({"input_boxes": "[[1, 2, NaN, 4]]"}, "NaN"),
    ({"input_points": "[[[1, Infinity]]]"}, "finite coordinates"),
    ({"input_points": CLICK, "input_labels": "[[3]]"}, "column 'input_labels': expected (prompts, points) labels"),
    ({"input_labels": "[[1]]"}, "labels without points"),
    (
        {"input_points": CLICK, "input_labels": "[[1, 0]]"},
        "expected 1 labels for prompt 0, one per point, got 2 labels",
    ),
    (
        {"input_points": CLICK, "input_boxes": "[[1,2,3,4],[1,2,3,4]]"},
        "as many boxes as prompts of points (1), got 2 boxes",
    ),
    ({"input_boxes": BOX, "multimask_output": "maybe"}, "column 'multimask_output': expected true or false"),
    ({"input_boxes": BOX, "mask_input": [[1.0, 2.0]]}, "column 'mask_input': expected logits of 180 x 180, got 1x2"),
]


@pytest.mark.parametrize(("cells", "message"), BAD_ROWS, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_rejects_or_records_bad_rows(pyfunc: Any, picture: str, cells: dict[str, Any], message: str) -> None:
    bad = {"image": picture, **cells}
    with pytest.raises(MlflowException) as raised:
        pyfunc.predict(frame(bad))
    assert message in raised.value.message and raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert "row 0" in raised.value.message and picture[:30] not in raised.value.message
    good = {"image": picture, "input_boxes": BOX}
    answer = pyfunc.predict(frame(good, bad, good), params={"on_error": "record"})
    assert message.replace("row 0", "row 1") in answer["error"][1] and answer["predictions"][1] == []
    assert answer["error"][1].startswith("row 1, column ")
    assert [answer["error"][0], answer["error"][2]] == [None, None]
    assert pictures.tolerant(answer["predictions"][0]) == pictures.tolerant(answer["predictions"][2]) != []


def test_an_unknown_image_id_has_status_404(pyfunc: Any) -> None:
    with pytest.raises(MlflowException, match="the id of a cached image") as caught:
        pyfunc.predict(frame({"image_id": "never seen", "input_boxes": BOX}))
    assert caught.value.get_http_status_code() == 404


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask_encoding": "jpeg"}, "parameter 'mask_encoding': expected 'png' or 'rle' or 'polygon', got text of"),
        ({"response_format": "xml"}, "parameter 'response_format'"),
        ({"on_error": "ignore"}, "parameter 'on_error'"),
        ({"return_logits": "perhaps"}, "return_logits"),
        (
            {"points_per_side": 0},
            "parameter 'points_per_side': expected a whole number from 1 to 128, got the number 0",
        ),
        ({"points_per_side": 129}, "parameter 'points_per_side'"),
        ({"points_per_batch": 0}, "parameter 'points_per_batch': expected a whole number from 1 to 1,024"),
        ({"pred_iou_thresh": 7.0}, "parameter 'pred_iou_thresh': expected a number from 0 to 1, got the number 7"),
        ({"pred_iou_thresh": float("nan")}, "parameter 'pred_iou_thresh': expected a number from 0 to 1"),
        ({"stability_score_thresh": -0.1}, "parameter 'stability_score_thresh'"),
        ({"stability_score_offset": -1.0}, "parameter 'stability_score_offset': expected a number from 0 to 100"),
        ({"box_nms_thresh": 1.5}, "parameter 'box_nms_thresh'"),
        ({"crop_n_layers": 4}, "parameter 'crop_n_layers': expected a whole number from 0 to 3, got the number 4"),
        ({"crop_nms_thresh": float("inf")}, "parameter 'crop_nms_thresh'"),
        ({"crop_overlap_ratio": 1.0}, "parameter 'crop_overlap_ratio': expected a number from 0 to 0.9"),
        ({"crop_n_points_downscale_factor": 0}, "parameter 'crop_n_points_downscale_factor'"),
        ({"min_mask_region_area": -5}, "parameter 'min_mask_region_area': expected a whole number from 0 to"),
    ],
)
def test_rejects_bad_values_of_params(pyfunc: Any, picture: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException) as caught:
        pyfunc.predict(frame({"image": picture, "input_boxes": BOX}), params=params)
    assert message in caught.value.message and caught.value.get_http_status_code() == 400


def test_rejects_a_table_without_images(pyfunc: Any) -> None:
    with pytest.raises(MlflowException, match="a table with a column image or image_id"):
        pyfunc.predict(pd.DataFrame({"input_boxes": [BOX]}))


def test_params_of_a_request_override_the_defaults_of_the_deployment(packaged: Path, picture: str) -> None:
    config = {"mask_encoding": "rle", "on_error": "record", "device": "cpu", "max_pixels": 10_000}
    model = mlflow.pyfunc.load_model(str(packaged), model_config=config)
    answer = model.predict(frame({"image": picture, "input_boxes": BOX}))
    assert "at most 10000 pixels" in answer["error"][0]
    small = pictures.to_text(pictures.disc(90, 90)[0])
    rows = frame({"image": small, "input_boxes": "[[10, 10, 80, 80]]"})
    rle = model.predict(rows)["predictions"][0][0]["mask_per_prediction"][0]
    assert masks.decode(rle["encoded_binary_mask"], "rle", (90, 90)).sum() == rle["area"]
    polygon = model.predict(rows, params={"mask_encoding": "polygon"})["predictions"][0][0]["mask_per_prediction"][0]
    assert polygon["encoded_binary_mask"].startswith("[")


def test_the_signature_lists_every_param_with_its_default(pyfunc: Any) -> None:
    params = {spec.name: spec.default for spec in pyfunc.metadata.signature.params}
    # The starter checkpoint has its own pred_iou_thresh, stability_score_thresh and box_nms_thresh.
    assert params == {
        "mask_encoding": "png",
        "response_format": "model_card",
        "return_logits": False,
        "on_error": "raise",
        "orientation": "stored",
        "points_per_side": 32,
        "points_per_batch": 64,
        "pred_iou_thresh": 0.75,
        "stability_score_thresh": 0.9,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.4,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.7,
        "crop_overlap_ratio": 512 / 1500,
        "crop_n_points_downscale_factor": 1,
        "min_mask_region_area": 0,
        "concept_thresh": 0.5,
        "concept_nms_thresh": None,
        "exemplar_thresh": 0.9,
    }
    names = [column.name for column in pyfunc.metadata.signature.outputs]
    assert names == ["predictions", "image_id", "error"]
