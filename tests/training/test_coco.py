"""COCO instances files, as they should be and as they come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from model import masks
from scoring.batch.sources import BadTable
from tests import pictures
from tests.training.labelled import data_set, polygons, runs, write
from training.coco import Coco, run_lengths
from training.ground_truth import Scenes


@pytest.mark.parametrize("seed", range(5))
def test_masks_in_every_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((37, 53), bool)
    for _ in range(4):
        y, x = rng.integers(0, 30), rng.integers(0, 45)
        mask[y : y + rng.integers(2, 20), x : x + rng.integers(2, 20)] ^= True
    text = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode("ascii")
    outlines, filled = polygons(mask)
    forms: list[tuple[Any, np.ndarray]] = [
        ({"size": [37, 53], "counts": text}, mask),
        (runs(mask), mask),
        (outlines, filled),
    ]
    for given, wanted in forms:
        rle = run_lengths(json.loads(json.dumps(given)), (37, 53))
        assert rle is not None and np.array_equal(masks.from_rle(rle), wanted)


@pytest.mark.parametrize("given", [None, [], {}])
def test_no_mask_is_none(given: object) -> None:
    assert run_lengths(given, (10, 10)) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([[1, 1, 5, 5]], "polygons of three points"),  # a box, as pycocotools reads it
        ([[1, 1, 5, 1, 5]], "polygons of three points"),
        ([[1, 1, 5, 1, 5, float("nan")]], "polygons of three points"),
        ([[1, 1, 1e12, 1, 5, 5]], "polygons of three points"),
        ([[1, 1, 5, 1, "5", 5]], "polygons of three points"),
        ("mask.png", "text of 8 characters"),
        ({"size": [10, 10]}, "an object with 1 keys"),
        ({"size": [9, 10], "counts": [90]}, r"size \[10, 10\], got \[9, 10\]"),
        ({"size": [10, 10], "counts": [50, 10]}, "runs of 100 pixels"),
        ({"size": [10, 10], "counts": [150, -50]}, "runs of 100 pixels"),
        ({"size": [10, 10], "counts": ""}, "runs of 100 pixels"),
        ({"size": [10, 10], "counts": "1000000000"}, "runs of 100 pixels"),
        ({"size": [10, 10], "counts": "äöü"}, "compressed run lengths, got other text"),
    ],
)
def test_broken_masks_say_what_was_expected(given: object, told: str) -> None:
    """Some of these pycocotools answers with whatever was in memory."""
    with pytest.raises(ValueError, match=told):
        run_lengths(given, (10, 10))


def test_a_data_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    truth = Coco(write(tmp_path, "data.json", data_set(tmp_path, 3)))
    assert truth.settings == {"data": "data.json", "images": 3}
    for picture, drawn in zip(truth, Scenes(3), strict=True):
        assert np.array_equal(picture.image, drawn.image)
        assert [thing.rle for thing in picture.things] == [thing.rle for thing in drawn.things]
    assert truth.problems.noted() == {} and truth.problems.told() == ""


def test_sizes_are_cocos(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    sides = ((31, 33), (32, 32), (96, 95), (96, 96))  # 1023, 1024, 9120 and 9216 pixels
    outlines = [[[0, 0, width, 0, width, height, 0, height]] for width, height in sides]
    annotations = [{"id": i, "image_id": "a", "category_id": 1, "segmentation": s} for i, s in enumerate(outlines)]
    given = {"images": [{"id": "a", "file_name": "a.png"}], "annotations": annotations, "categories": [{"id": 1}]}
    (picture,) = Coco(write(tmp_path, "data.json", given))
    assert [thing.size for thing in picture.things] == ["small", "medium", "medium", "large"]


def test_images_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    given = data_set(tmp_path / "photos", 2)
    file = write(tmp_path, "data.json", given)
    assert len(list(Coco(file, tmp_path / "photos"))) == 2
    elsewhere = Coco(file)
    assert list(elsewhere) == []
    count = sum(one["image_id"] == 0 for one in given["annotations"])
    first = elsewhere.problems.noted()["images missing, left out"]
    assert first["count"] == 2 and first["first"][0] == f"0.png ({count} annotations)"


def test_images_that_are_not_what_the_file_says(tmp_path: Path) -> None:
    given = data_set(tmp_path, 4)
    (tmp_path / "0.png").write_bytes(b"no image at all")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
    (tmp_path / "2.png").write_bytes(pictures.disc(64, 48)[0])
    truth = Coco(write(tmp_path, "data.json", given))
    assert [picture.name for picture in truth] == ["3.png"]
    noted = truth.problems.noted()
    unreadable = noted["images that cannot be read, left out"]
    assert unreadable["count"] == 2
    assert "0.png" in unreadable["first"][0] and "no known image format" in unreadable["first"][0]
    assert "1.png" in unreadable["first"][1] and "a broken image (500 bytes)" in unreadable["first"][1]
    size = noted["images of another size than the file says, left out"]["first"][0]
    assert "64 x 48 instead of" in size


def test_more_of_a_kind_than_can_be_named(tmp_path: Path) -> None:
    given = data_set(tmp_path, 1)
    given["annotations"] = [{"id": i, "image_id": 0, "category_id": 1, "iscrowd": 1} for i in range(50)]
    truth = Coco(write(tmp_path, "data.json", given))
    assert [len(picture.things) for picture in truth] == [0]
    crowds = truth.problems.noted()["crowd regions, left out"]
    assert crowds["count"] == 50 and crowds["first"][:2] == ["annotation 0", "annotation 1"]
    assert len(crowds["first"]) == 20
    assert "    50 crowd regions, left out: annotation 0, annotation 1, annotation 2, ..." in truth.problems.told()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("not json", "is not JSON: Expecting value"),
        ("\ufeff\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "got a list of 2"),
        ("{}", "got one without images and annotations and categories, whose keys are none"),
        ('{"images": [], "annotations": []}', "got one without categories, whose keys are images, annotations"),
        ('{"images": {}, "annotations": [], "categories": []}', "got one without images"),
    ],
)
def test_what_is_no_coco_file_says_what_was_expected(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(BadTable, match="expected a COCO instances file, an object with the lists images") as raised:
        Coco(tmp_path / "data.json")
    assert told in str(raised.value)
