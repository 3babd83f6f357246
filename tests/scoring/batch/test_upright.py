"""Annotation of photographs with an EXIF orientation: labels are those of the image as viewers show it."""

from __future__ import annotations

import io
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
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import VOC_BOX, coco_file, voc, write_files

WIDTH, HEIGHT = 240, 160  # of the image as viewers show it
BOX = [66, 36, 90, 90]  # x, y, width and height of a box around the disc, in the image as viewers show it
ORIENTATIONS = range(1, 9)


def write_photograph(orientation: int, file: Path) -> None:
    """Write a photograph that viewers show in the same way for every orientation."""
    picture = Image.open(io.BytesIO(pictures.disc(WIDTH, HEIGHT)[0]))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pictures.turned(picture, orientation, "JPEG", quality=95))
    assert ImageOps.exif_transpose(Image.open(file)).size == (WIDTH, HEIGHT)


class BlueDetector:
    """A detector of blue pixels."""

    def __init__(self) -> None:
        self.names = {4: "blue"}

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the box of all blue pixels."""
        ys, xs = np.nonzero(image[..., 2].astype(int) - image[..., 0] > 50)
        return [Detection(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]), 4)]


@pytest.fixture(scope="module")
def results(
    tiny: Segmenter, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, LabelledImage | Exception]]:
    """Return the labels of photographs in all eight orientations, for each source of boxes."""
    folder = tmp_path_factory.mktemp("upright")
    for orientation in ORIENTATIONS:
        write_photograph(orientation, folder / "photos" / f"{orientation}.jpg")
    files = [{"id": i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in ORIENTATIONS]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": BOX} for i in ORIENTATIONS]
    coco_file(folder / "c.json", [], images=files, annotations=annotations)
    x, y, width, height = BOX
    line = f"0 {(x + width / 2) / WIDTH} {(y + height / 2) / HEIGHT} {width / WIDTH} {height / HEIGHT}"
    write_files(folder / "yolo", *(f"{i}.txt" for i in ORIENTATIONS), text=line)
    images = list_images(folder / "photos")
    model = OpenedModel("tiny", engine_of(tiny, local_paths=True))
    few = {"points_per_side": 4, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.4}
    finders = {
        "coco": finder_from_labels(boxes.read(folder / "c.json").match(images, folder)),
        "yolo": finder_from_labels(boxes.read(folder / "yolo").match(images, folder)),
        "detector": finder_from_detector(BlueDetector()),
        "everything": segment_everything,
    }
    return {name: dict(annotate_images(model, images, find, few)) for name, find in finders.items()}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("source", ["coco", "yolo", "detector", "everything"])
def test_masks_cover_the_disc_as_viewers_show_it(
    source: str, orientation: int, results: dict[str, dict[str, LabelledImage | Exception]]
) -> None:
    labelled = results[source][f"{orientation}.jpg"]
    assert isinstance(labelled, LabelledImage) and labelled.size == (HEIGHT, WIDTH)
    disc = pictures.disc(WIDTH, HEIGHT)[1]
    assert max(pictures.iou(labelled.mask(thing), disc) for thing in labelled.objects) > 0.8


def test_label_files_have_the_size_and_masks_of_the_upright_image(packaged: Path, tmp_path: Path) -> None:
    """Checks the COCO file, the numbered masks and the sheet."""
    write_photograph(6, tmp_path / "photos" / "a.jpg")
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": BOX}
    boxes_file = coco_file(tmp_path / "c.json", ["a.jpg"], annotations=[annotation])
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
    orange = sheet[..., 0] - sheet[..., 2] > 20  # the colour of the mask and of its box
    assert orange[disc].mean() > 0.9


@pytest.mark.parametrize(
    ("orientation", "stated", "message"),
    [
        (
            6,
            (HEIGHT, WIDTH),
            "states 160 x 240 pixels, but the image has 240 x 160 pixels, so the boxes would be in the wrong place. "
            "The stated size is that of the image without its EXIF orientation",
        ),
        (
            1,
            (HEIGHT, WIDTH),
            "states 160 x 240 pixels, but the image has 240 x 160 pixels, so the boxes would be in the wrong place. "
            "The stated size is that of the image rotated by 90 degrees",
        ),
        (1, (120, 80), "states 120 x 80 pixels, but the image has 240 x 160 pixels"),
    ],
)
def test_rejects_boxes_whose_file_states_another_size_of_the_image(
    orientation: int, stated: tuple[int, int], message: str, tiny: Segmenter, tmp_path: Path
) -> None:
    write_photograph(orientation, tmp_path / "photos" / "a.jpg")
    width, height = stated
    image = {"id": 0, "file_name": "a.jpg", "width": width, "height": height}
    coco_file(tmp_path / "c.json", ["a.jpg"], images=[image])
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    write_files(tmp_path, "voc/a.xml", text=voc(f"<name>disc</name>{VOC_BOX}", head=size))
    model = OpenedModel("tiny", engine_of(tiny, local_paths=True))
    images = list_images(tmp_path / "photos")
    for where in ("c.json", "voc"):
        find = finder_from_labels(boxes.read(tmp_path / where).match(images, tmp_path))
        (result,) = dict(annotate_images(model, images, find)).values()
        assert isinstance(result, Exception) and message in str(result)
