"""COCO instances files, well-formed and malformed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.errors import BadData
from tests import pictures
from tests.evaluation.coco_files import write_images, write_json


def test_reads_the_images_and_masks_of_a_data_set(tmp_path: Path) -> None:
    dataset = CocoDataset(write_json(tmp_path, "data.json", write_images(tmp_path, 3)))
    assert dataset.settings == {"data": "data.json", "images": 3}
    for image, scene in zip(dataset, SceneDataset(3), strict=True):
        assert np.array_equal(image.pixels, scene.pixels)
        assert [true.rle for true in image.objects] == [true.rle for true in scene.objects]
    assert dataset.problems.to_dict() == {} and dataset.problems.format_lines() == ""


def test_objects_have_the_size_classes_of_coco(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    sides = ((31, 33), (32, 32), (96, 95), (96, 96))  # 1023, 1024, 9120 and 9216 pixels
    outlines = [[[0, 0, width, 0, width, height, 0, height]] for width, height in sides]
    annotations = [{"id": i, "image_id": "a", "category_id": 1, "segmentation": s} for i, s in enumerate(outlines)]
    instances = {"images": [{"id": "a", "file_name": "a.png"}], "annotations": annotations, "categories": [{"id": 1}]}
    (image,) = CocoDataset(write_json(tmp_path, "data.json", instances))
    assert [true.size for true in image.objects] == ["small", "medium", "medium", "large"]


def test_reads_images_from_the_folder_of_images_and_reports_missing_ones(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    instances = write_images(tmp_path / "photos", 2)
    file = write_json(tmp_path, "data.json", instances)
    assert len(list(CocoDataset(file, tmp_path / "photos"))) == 2
    elsewhere = CocoDataset(file)
    assert list(elsewhere) == []
    count = sum(annotation["image_id"] == 0 for annotation in instances["annotations"])
    problem = elsewhere.problems.to_dict()["images missing, left out"]
    assert problem["count"] == 2 and problem["first"][0] == f"0.png ({count} annotations)"


def test_reports_and_leaves_out_broken_images_and_images_of_another_size(tmp_path: Path) -> None:
    instances = write_images(tmp_path, 4)
    (tmp_path / "0.png").write_bytes(b"no image at all")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
    (tmp_path / "2.png").write_bytes(pictures.disc(64, 48)[0])
    dataset = CocoDataset(write_json(tmp_path, "data.json", instances))
    assert [image.name for image in dataset] == ["3.png"]
    problems = dataset.problems.to_dict()
    unreadable = problems["images that cannot be read, left out"]
    assert unreadable["count"] == 2
    assert "0.png" in unreadable["first"][0] and "no known image format" in unreadable["first"][0]
    assert "1.png" in unreadable["first"][1] and "a broken image (500 bytes)" in unreadable["first"][1]
    size = problems["images of another size than the file says, left out"]["first"][0]
    assert "64 x 48 instead of" in size


@pytest.mark.parametrize("turn", [3, 6])
@pytest.mark.parametrize("stated", [{}, {"height": 40, "width": 60}])
def test_masks_without_a_size_are_those_of_the_upright_image(turn: int, stated: dict[str, int], tmp_path: Path) -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[5:15, 5:20] = 255
    (tmp_path / "a.png").write_bytes(pictures.turned(Image.fromarray(upright), turn))
    outline = [[5, 5, 20, 5, 20, 15, 5, 15]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", **stated}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": outline}],
        "categories": [{"id": 1, "name": "square"}],
    }
    (image,) = CocoDataset(write_json(tmp_path, "data.json", content))
    assert np.array_equal(image.objects[0].mask, image.pixels[..., 0] > 0)


def test_lists_only_the_first_cases_of_a_problem(tmp_path: Path) -> None:
    instances = write_images(tmp_path, 1)
    instances["annotations"] = [{"id": i, "image_id": 0, "category_id": 1, "iscrowd": 1} for i in range(50)]
    dataset = CocoDataset(write_json(tmp_path, "data.json", instances))
    assert [len(image.objects) for image in dataset] == [0]
    crowds = dataset.problems.to_dict()["crowd regions, left out"]
    assert crowds["count"] == 50 and crowds["first"][:2] == ["annotation 0", "annotation 1"]
    assert len(crowds["first"]) == 20
    line = "    50 crowd regions, left out: annotation 0, annotation 1, annotation 2, ..."
    assert line in dataset.problems.format_lines()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is not JSON: Expecting value"),
        ("\ufeff\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "got a list of 2"),
        ("{}", "got an object without images and annotations and categories; its keys are none"),
        ('{"images": [], "annotations": []}', "got an object without categories; its keys are images, annotations"),
        ('{"images": {}, "annotations": [], "categories": []}', "got an object without images"),
    ],
)
def test_rejects_files_that_are_not_coco_with_the_expected_content(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(BadData, match="expected a COCO instances file, an object with the lists images") as raised:
        CocoDataset(tmp_path / "data.json")
    assert message in str(raised.value)
