"""Reports of `annotate` about labels that do not match the images, and outputs that it does not overwrite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadData, OutputConflict
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch import boxes
from sam_endpoint.scoring.batch.annotate import (
    annotate_images,
    auto_annotate,
    finder_from_detector,
    finder_from_labels,
    list_images,
)
from sam_endpoint.scoring.batch.boxes import Detection
from sam_endpoint.scoring.batch.labels import LabelledImage
from sam_endpoint.scoring.runtime import OpenedModel
from tests import pictures
from tests.engines import engine_of
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import coco_file

BBOX = [66, 36, 90, 90]
BOX = [66.0, 36.0, 156.0, 126.0]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write three images of a disc, one of them in a subfolder."""
    for name in ("a.png", "b.png", "more/a.png"):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pictures.disc()[0])
    return tmp_path / "photos"


def classes(file: Path) -> list[int]:
    """Return the classes in a YOLO file."""
    return [int(line.split()[0]) for line in file.read_text().splitlines()]


def test_reports_boxes_and_images_of_a_coco_file_that_do_not_match(
    packaged: Path, photos: Path, tmp_path: Path
) -> None:
    """The file has names with more folders, ids with gaps, bad boxes, and missing and unlisted images.

    At the end, the written labels are read as boxes.
    """
    good = {"id": 1, "image_id": 0, "category_id": 3, "bbox": BBOX}
    file = coco_file(
        tmp_path / "c.json",
        ["img/a.png", "img/more/a.png", "img/other.png"],
        categories=[{"id": 3, "name": "disc"}, {"id": 90, "name": "table"}],
        annotations=[
            good,
            {**good, "id": 2, "bbox": [500, 0, 9, 9]},
            {**good, "id": 3, "bbox": None},
            {**good, "id": 4, "image_id": "1", "category_id": 90},
            {**good, "id": 5, "image_id": 77},
        ],
    )
    out = tmp_path / "out"
    done = run("annotate", "--model", packaged, "--data", photos, "--boxes", file, "--output", out)
    assert done.returncode == 0, done.stderr
    assert "images       3 (0 done before, 0 failed)" in done.stdout
    assert f"not found in '{photos}': 1 of the images that '{file}' lists, such as 'img/other.png'" in done.stdout
    assert f"no entry in '{file}': 1 of the images in '{photos}', such as 'b.png'" in done.stdout
    assert (
        "skipped 3 boxes: annotation 5: its image_id is not the id of an image in 'images'; "
        "a.png annotation 3: expected bbox [x, y, width, height], got nothing; "
        "a.png annotation 2: expected x1 < x2 and y1 < y2 within the image, got 500,0,509,9"
    ) in done.stdout
    assert [classes(out / "labels" / name) for name in ("a.txt", "b.txt", "more/a.txt")] == [[0], [], [1]]
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "disc", 1: "table"}
    coco = json.loads((out / "annotations.json").read_text())
    assert [item["category_id"] for item in coco["annotations"]] == [3, 90]
    assert [item["file_name"] for item in coco["images"]] == ["a.png", "b.png", "more/a.png"]

    written = boxes.read(out / "labels")
    assert written.names == {0: "disc", 1: "table"}
    matched = written.match(list_images(photos), photos)
    assert not matched.missing and not matched.unlisted
    for name, category in (("a.png", 0), ("more/a.png", 1)):
        (detection,) = matched.of(name, (160, 240)).detections
        assert detection.category == category and np.abs(detection.box - [70, 40, 151, 121]).max() < 6
    assert matched.of("b.png", (160, 240)).detections == []

    command = ("annotate", "--model", packaged, "--data", photos, "--boxes", out / "labels", "--output", out)
    inside = run(*command, "--overwrite")
    assert inside.returncode == 2 and "--overwrite would delete" in inside.stderr
    assert classes(out / "labels" / "a.txt") == [0]


def test_a_second_run_makes_anew_what_the_label_file_changed(packaged: Path, photos: Path, tmp_path: Path) -> None:
    out, where = tmp_path / "out", tmp_path / "c.json"
    command = ("annotate", "--model", packaged, "--data", photos, "--boxes", where, "--output", out)
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": None}
    for bbox, before, count in ((None, 0, 0), (None, 3, 0), (BBOX, 2, 1), (BBOX, 3, 1)):
        coco_file(where, ["a.png", "b.png", "more/a.png"], annotations=[{**annotation, "bbox": bbox}])
        done = run(*command)
        assert f"images       3 ({before} done before, 0 failed)" in done.stdout, done.stderr
        assert ("skipped 1 box: a.png annotation 1" in done.stdout) is (bbox is None)
        assert len(classes(out / "labels" / "a.txt")) == count
    coco_file(where, ["a.png"], categories=[{"id": 0, "name": "ring"}, {"id": 1, "name": "disc"}])
    done = run(*command)
    assert (
        done.returncode == 2 and "or the labels of another job" in done.stderr
    )  # the numbers of the classes differ now


def test_rejects_labels_that_name_none_of_the_images(photos: Path, tmp_path: Path) -> None:
    file = coco_file(tmp_path / "c.json", ["other.jpg", "x.jpg", "y.jpg"])
    done = run("annotate", "--data", photos, "--boxes", file, "--output", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == (
        f"error: '{file}' lists 3 images, such as 'other.jpg', but none is in '{photos}', "
        "which has 3 images, such as 'a.png'\n"
    )


BAD_BOXES: dict[str, Any] = {
    "c.json": b"\xff\xfe\xff",
    "list.json": b"[]",
    "none.json": None,
    "empty.json": b"",
    "folder.json/note.md": b"",
    "words.txt": b"0 0.5 0.5 0.2 0.2",
    "bad/data.yaml": b"names: 7",
}


@pytest.mark.parametrize("name", BAD_BOXES)
def test_rejects_label_files_that_cannot_be_read(name: str, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "boxes" / name
    if BAD_BOXES[name] is not None:
        file.parent.mkdir(parents=True)
        file.write_bytes(BAD_BOXES[name])
    where = tmp_path / "boxes" / name.split("/")[0]
    if where.name == "bad":
        (where / "a.txt").write_text("0 0.5 0.5 0.2 0.2")
    done = run("annotate", "--data", photos, "--boxes", where, "--output", tmp_path / "out", "--model", "none")
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
    assert f"'{where}" in done.stderr and not (tmp_path / "out").exists()


def test_does_not_overwrite_other_files_and_folders(packaged: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "job.json").write_text("{")
    (tmp_path / "mine" / "labels").mkdir(parents=True)
    (tmp_path / "mine" / "labels" / "a.txt").write_text("mine")
    for output, message in (
        ("file", "is a file; --output must be a folder"),
        ("file/x", "Not a directory"),
        ("broken", "holds other files, or the labels of another job; choose another --output"),
        ("mine", "holds other files, or the labels of another job; choose another --output"),
    ):
        done = run("annotate", "--model", packaged, "--data", photos, "--output", tmp_path / output)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
    done = run("annotate", "--model", packaged, "--data", photos, "--output", tmp_path / "mine", "--overwrite")
    assert done.returncode == 2 and "was not written by this command" in done.stderr
    assert (tmp_path / "mine" / "labels" / "a.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def test_does_not_annotate_an_output_inside_the_folder_of_images(photos: Path) -> None:
    (photos / "out").mkdir()
    (photos / "out" / "sheet.png").write_bytes(pictures.disc()[0])
    (photos / "._a.png").write_bytes(b"left by a file manager")
    (photos / "folder.png").mkdir()
    assert list(list_images(photos, without=photos / "out")) == ["a.png", "b.png", "more/a.png"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s.jpg", "s.png"], "s.jpg and s.png would have the same label file"),
        (["x/classes.jpg"], r"x/classes.jpg would have the label file x/classes.txt, which lists classes"),
    ],
)
def test_rejects_images_that_would_share_a_label_file(names: list[str], message: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pictures.disc()[0])
    with pytest.raises(BadData, match=message):
        list_images(tmp_path)


def test_an_image_may_have_more_boxes_than_the_limit_of_a_request(
    tiny: Segmenter, photos: Path, tmp_path: Path
) -> None:
    """An engine with at most two prompts per request finds the same masks for five boxes as one without a limit."""
    annotations = [{"id": i, "image_id": 0, "category_id": 1, "bbox": [66 - i, 36, 90 + 2 * i, 90]} for i in range(5)]
    labels = boxes.read(coco_file(tmp_path / "c.json", ["a.png"], annotations=annotations))
    images = {"a.png": photos / "a.png"}
    reader = ImageReader(ImageLimits(local_paths=True))
    results = []
    for limit in (2, 10_000):
        model = OpenedModel("tiny", Engine(tiny, reader, EmbeddingCache(2**28), max_prompts=limit))
        results.append(dict(annotate_images(model, images, finder_from_labels(labels.match(images, photos))))["a.png"])
    few, many = results
    assert isinstance(few, LabelledImage) and isinstance(many, LabelledImage) and len(few.objects) == 5
    for a, b in zip(few.objects, many.objects, strict=True):
        assert pictures.iou(few.mask(a), many.mask(b)) > 0.99


class GappyDetector:
    """A detector with gaps between its class ids. It returns the disc, a box of an unknown class, and an empty box."""

    def __init__(self) -> None:
        self.names = {1: "person", 90: "disc"}

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the same boxes for every image, or fail for an image of fewer than three rows."""
        if image.shape[0] < 3:
            raise ValueError("mean must have 1 elements")
        flat = np.array([5.0, 5, 5, 9])
        return [Detection(np.array(BOX), 90), Detection(np.array(BOX), 12), Detection(flat, 1, origin="box 3")]


def test_faults_of_a_detector_affect_only_their_image_or_box(tiny: Segmenter, photos: Path) -> None:
    (photos / "dot.png").write_bytes(pictures.disc(1, 1)[0])
    model = OpenedModel("tiny", engine_of(tiny, local_paths=True))
    results = dict(annotate_images(model, list_images(photos), finder_from_detector(GappyDetector())))
    assert str(results["dot.png"]).endswith("expected an image that the detector can process, got ValueError")
    labelled = results["a.png"]
    assert isinstance(labelled, LabelledImage) and [thing.category for thing in labelled.objects] == [90]
    assert labelled.skipped == [
        "a box of class 12, which has no name",
        "box 3: expected x1 < x2 and y1 < y2 within the image, got 5,5,5,9",
    ]


def test_auto_annotate_rejects_a_folder_with_other_classes(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    params = {"points_per_side": 2, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
    auto_annotate(photos, sam_model="checkpoints/sam-tiny", device="cpu", output_dir=out, params=params)
    assert (out / "classes.txt").read_text() == "object\n"
    written = boxes.read(out)
    assert written.names == {0: "object"} and set(written.listed) == {"a", "b", "more/a"}
    (out / "classes.txt").write_text("cup\n")
    with pytest.raises(OutputConflict, match="lists other classes"):
        auto_annotate(photos, sam_model="checkpoints/sam-tiny", device="cpu", output_dir=out, params=params)
