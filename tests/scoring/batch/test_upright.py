"""Photographs with an EXIF orientation are annotated as they are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch import boxes
from sam_endpoint.scoring.batch.annotate import (
    annotate_images,
    finder_from_detector,
    finder_from_labels,
    list_images,
    segment_everything,
)
from sam_endpoint.scoring.batch.boxes import Detection
from sam_endpoint.scoring.batch.labels import LabelledImage
from sam_endpoint.scoring.runtime import OpenedModel
from tests import pictures
from tests.engines import engine_of
from tests.scoring.batch.test_batch import run
from tests.scoring.batch.test_boxes import VOC_BOX

WIDTH, HEIGHT = 240, 160  # as shown
BOX = [66, 36, 90, 90]  # x, y, width, height around the disc as shown
ORIENTATIONS = range(1, 9)


def photograph(orientation: int, file: Path) -> None:
    """A disc that is seen at the same place in every orientation."""
    picture = Image.open(io.BytesIO(pictures.disc(WIDTH, HEIGHT)[0]))
    turn = pictures.STORED[orientation]
    stored = picture if turn is None else picture.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    stored.save(file, quality=95, exif=exif.tobytes())
    assert ImageOps.exif_transpose(Image.open(file)).size == (WIDTH, HEIGHT)


class BlueThings:
    """A detector of what is blue."""

    def __init__(self) -> None:
        self.names = {4: "blue"}

    def __call__(self, image: np.ndarray) -> list[Detection]:
        ys, xs = np.nonzero(image[..., 2].astype(int) - image[..., 0] > 50)
        return [Detection(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]), 4)]


@pytest.fixture(scope="module")
def results(
    tiny: Segmenter, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, LabelledImage | Exception]]:
    """The labels of all eight orientations, from every source of boxes."""
    folder = tmp_path_factory.mktemp("upright")
    for orientation in ORIENTATIONS:
        photograph(orientation, folder / "photos" / f"{orientation}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in ORIENTATIONS],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": BOX} for i in ORIENTATIONS],
        "categories": [{"id": 1, "name": "disc"}],
    }
    (folder / "c.json").write_text(json.dumps(content))
    (folder / "yolo").mkdir()
    x, y, width, height = BOX
    line = f"0 {(x + width / 2) / WIDTH} {(y + height / 2) / HEIGHT} {width / WIDTH} {height / HEIGHT}"
    for i in ORIENTATIONS:
        (folder / "yolo" / f"{i}.txt").write_text(line)
    images = list_images(folder / "photos")
    model = OpenedModel("tiny", engine_of(tiny, local_paths=True))
    few = {"points_per_side": 4, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4}
    finders = {
        "coco": finder_from_labels(boxes.read(folder / "c.json").match(images, folder)),
        "yolo": finder_from_labels(boxes.read(folder / "yolo").match(images, folder)),
        "detector": finder_from_detector(BlueThings()),
        "everything": segment_everything,
    }
    return {name: dict(annotate_images(model, images, find, few)) for name, find in finders.items()}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("source", ["coco", "yolo", "detector", "everything"])
def test_masks_lie_on_the_disc_as_shown(
    source: str, orientation: int, results: dict[str, dict[str, LabelledImage | Exception]]
) -> None:
    labelled = results[source][f"{orientation}.jpg"]
    assert isinstance(labelled, LabelledImage) and labelled.size == (HEIGHT, WIDTH)
    disc = pictures.disc(WIDTH, HEIGHT)[1]
    assert max(pictures.iou(labelled.mask(thing), disc) for thing in labelled.objects) > 0.8


def test_files_of_a_photograph_on_its_side(packaged: Path, tmp_path: Path) -> None:
    """COCO's sizes, the numbered masks and the sheet are those of the photograph as shown."""
    photograph(6, tmp_path / "photos" / "a.jpg")
    boxes_file = tmp_path / "c.json"
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    boxes_file.write_text(json.dumps(content))
    out = tmp_path / "out"
    done = run("annotate", "--model", packaged, "--data", tmp_path / "photos", "--boxes", boxes_file, "--output", out)
    assert done.returncode == 0, done.stderr
    disc = pictures.disc(WIDTH, HEIGHT)[1]
    coco = COCO(str(out / "annotations.json"))
    (image,) = coco.imgs.values()
    assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
    assert pictures.iou(coco.annToMask(coco.anns[1]) > 0, disc) > 0.8
    assert pictures.iou(np.asarray(Image.open(out / "masks" / "a.png")) > 0, disc) > 0.8
    sheet = np.asarray(Image.open(out / "sheet.png")).astype(int)[8:-8, 8:-8]
    assert sheet.shape == (HEIGHT, WIDTH, 3)
    orange = sheet[..., 0] - sheet[..., 2] > 20  # the tint of the mask and of its box, over blue and over the table
    assert orange[disc].mean() > 0.9


@pytest.mark.parametrize(
    ("orientation", "stated", "message"),
    [
        (
            6,
            (HEIGHT, WIDTH),
            "states 160 x 240 pixels, the size before the EXIF orientation rotates the image by 90 degrees",
        ),
        (1, (HEIGHT, WIDTH), "states 160 x 240 pixels, rotated by 90 degrees; the image has 240 x 160 pixels"),
        (1, (120, 80), "states 120 x 80 pixels; the image has 240 x 160 pixels"),
    ],
)
def test_boxes_in_an_image_of_another_size(
    orientation: int, stated: tuple[int, int], message: str, tiny: Segmenter, tmp_path: Path
) -> None:
    photograph(orientation, tmp_path / "photos" / "a.jpg")
    width, height = stated
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(
        f"<annotation>{size}<object><name>disc</name>{VOC_BOX}</object></annotation>"
    )
    model = OpenedModel("tiny", engine_of(tiny, local_paths=True))
    images = list_images(tmp_path / "photos")
    for where in ("c.json", "voc"):
        find = finder_from_labels(boxes.read(tmp_path / where).match(images, tmp_path))
        (result,) = dict(annotate_images(model, images, find)).values()
        assert isinstance(result, Exception) and message in str(result)
