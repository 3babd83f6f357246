"""`sam-endpoint annotate` and `auto_annotate`: other projects' packages read the label files that they write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData, BadModel
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch import annotate, boxes
from sam_endpoint.scoring.batch.annotate import annotate_images, auto_annotate, finder_from_labels, list_images
from sam_endpoint.scoring.batch.labels import LabelledImage
from sam_endpoint.scoring.runtime import OpenedModel
from tests import pictures
from tests.conftest import ROOT
from tests.engines import engine_of
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import read_with_clients

BOX = (66, 36, 156, 126)  # encloses the disc
SIZES = {"a.png": (240, 160), "b.png": (220, 180), "more/c.png": (200, 150)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write three images of a disc, one of them in a subfolder, and a broken image."""
    for name, size in SIZES.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pictures.disc(*size)[0])
    (tmp_path / "data" / "broken.png").write_bytes(b"broken")
    return tmp_path / "data"


def yolo_boxes(folder: Path) -> Path:
    """Write the boxes of the discs as YOLO files, and return their folder."""
    for name, (width, height) in SIZES.items():
        x1, y1, x2, y2 = BOX
        numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        file = (folder / "boxes" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1 " + " ".join(map(str, numbers)) + "\n")
    (folder / "boxes" / "data.yaml").write_text("names: [square, disc]\n")
    return folder / "boxes"


def coco_boxes(folder: Path) -> Path:
    """Write the boxes of the discs as a COCO file, and return it."""
    x1, y1, x2, y2 = BOX
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(SIZES)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]} for i in range(len(SIZES))
        ],
        "categories": [{"id": 7, "name": "disc"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def voc_boxes(folder: Path) -> Path:
    """Write the boxes of the discs as VOC files, and return their folder."""
    x1, y1, x2, y2 = BOX
    for name in SIZES:
        file = (folder / "boxes" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        edges = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        file.write_text(f"<annotation><object><name>disc</name><bndbox>{edges}</bndbox></object></annotation>")
    return folder / "boxes"


def open_segmenter(segmenter: Segmenter) -> OpenedModel:
    """Return a segmenter as an opened model."""
    return OpenedModel("tiny", engine_of(segmenter, local_paths=True))


@pytest.mark.parametrize("save", [yolo_boxes, coco_boxes, voc_boxes])
def test_masks_are_found_for_the_boxes_of_every_kind_of_label_file(
    save: Any, tiny: Segmenter, data: Path, tmp_path: Path
) -> None:
    labels = boxes.read(save(tmp_path))
    images = list_images(data)
    results = dict(annotate_images(open_segmenter(tiny), images, finder_from_labels(labels.match(images, data))))
    assert list(results) == ["a.png", "b.png", "broken.png", "more/c.png"]
    assert "image" in str(results.pop("broken.png"))
    for name, labelled in results.items():
        assert isinstance(labelled, LabelledImage) and labelled.size == SIZES[name][::-1]
        (detected,) = labelled.objects
        assert labels.names[detected.category] == "disc"
        assert pictures.iou(labelled.mask(detected), pictures.disc(*SIZES[name])[1]) > 0.9
        assert labels.of(name, labelled.size).detections[0].box.tolist() == pytest.approx(BOX, abs=1e-3)


def test_annotate_writes_every_kind_of_label_file_and_continues_a_finished_output(
    packaged: Path, data: Path, tmp_path: Path
) -> None:
    """A broken image does not affect the others. A second run annotates only the images without labels."""
    out = tmp_path / "out"
    command = ("annotate", "--model", packaged, "--data", data, "--boxes", yolo_boxes(tmp_path), "--output", out)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "images       4 (0 done before, 1 failed)" in done.stdout
    assert "objects      3 disc" in done.stdout
    assert "broken.png" in done.stdout

    coco = COCO(str(out / "annotations.json"))
    assert {image["file_name"] for image in coco.imgs.values()} == set(SIZES)
    for annotation in coco.anns.values():
        name = coco.imgs[annotation["image_id"]]["file_name"]
        mask = coco.annToMask(annotation)
        true = pictures.disc(*SIZES[name])[1]
        assert pictures.iou(mask > 0, true) > 0.9
        assert annotation["area"] == mask.sum() and coco.cats[annotation["category_id"]]["name"] == "disc"
        numbered = np.asarray(Image.open((out / "masks" / name).with_suffix(".png")))
        assert np.array_equal(numbered, mask)

    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "square", 1: "disc"}
    assert Image.open(out / "sheet.png").size[0] > 300

    (data / "broken.png").unlink()
    read = read_with_clients("supervision-coco", data, out / "annotations.json")
    assert read["names"] == ["square", "disc"] or read["names"] == ["disc"]
    for annotation in coco.anns.values():
        name = coco.imgs[annotation["image_id"]]["file_name"].rpartition("/")[2]
        assert read["images"][name]["masks"] == [np.flatnonzero(coco.annToMask(annotation)).tolist()]
    read = read_with_clients("supervision-yolo", data, out / "labels", out / "data.yaml")
    assert read["names"] == ["square", "disc"]
    for name in ("a.png", "b.png"):  # the package does not read subfolders
        mask = np.zeros(SIZES[name][::-1], bool)
        mask.flat[read["images"][name]["masks"][0]] = True
        assert read["images"][name]["classes"] == [1]
        assert pictures.iou(mask, pictures.disc(*SIZES[name])[1]) > 0.9

    stamps = {file: file.stat().st_mtime_ns for file in (out / "objects").rglob("*.json")}
    (data / "d.png").write_bytes(pictures.disc(150, 130)[0])
    done = run(*command)
    assert "images       4 (3 done before, 0 failed)" in done.stdout, done.stderr
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert (out / "labels" / "d.txt").read_text() == ""  # there are no boxes for this image
    done = run(*command, "--conf", "0.5")
    assert done.returncode == 2
    assert "holds other files, or the labels of another job; choose another --output" in done.stderr


def test_auto_annotate_segments_everything_and_keeps_existing_label_files(
    tiny: Segmenter, data: Path, tmp_path: Path, capsys: Any
) -> None:
    """The interface is that of Ultralytics. The label files are in a folder next to the data."""
    labels = tmp_path / "labels"
    (labels / "more").mkdir(parents=True)
    (labels / "more" / "c.txt").write_text("kept\n")
    (labels / "b.txt").write_text("kept\n")
    auto_annotate(data, sam_model="checkpoints/sam-tiny", conf=0.4, device="cpu")
    assert (labels / "b.txt").read_text() == "kept\n"
    assert "broken.png" in capsys.readouterr().err
    true = pictures.disc(*SIZES["a.png"])[1]
    best = 0.0
    for line in (labels / "a.txt").read_text().splitlines():
        category, *numbers = line.split()
        assert category == "0"
        outline = (np.array(numbers, float).reshape(-1, 2) * SIZES["a.png"]).ravel().tolist()
        best = max(best, pictures.iou(masks.decode(json.dumps([outline]), "polygon", true.shape), true))
    assert best > 0.9
    assert (labels / "more" / "c.txt").read_text() == "kept\n"


def test_auto_annotate_accepts_ultralytics_names_of_models(tmp_path: Path) -> None:
    assert annotate.ULTRALYTICS["sam_b.pt"] == "facebook/sam-vit-base"
    assert annotate.ULTRALYTICS["sam2.1_l.pt"] == "facebook/sam2.1-hiera-large"
    with pytest.raises(BadModel, match="no model can be loaded from"):
        annotate.open_sam(str(tmp_path))


def test_rejects_data_and_boxes_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="expected a folder of images"):
        list_images(tmp_path / "none")
    (data / "a.jpg").write_bytes(pictures.disc()[0])
    with pytest.raises(BadData, match=r"a.jpg and a.png would have the same label file"):
        list_images(data)
    (tmp_path / "some.json").write_text('{"images": []}')
    with pytest.raises(
        BadData, match="is not a COCO instances file with images, annotations and categories: it has no 'categories'"
    ):
        boxes.read(tmp_path / "some.json")
    with pytest.raises(BadData, match=r"expected a COCO .json or a folder"):
        boxes.read(tmp_path / "none")


def test_annotating_everything_uses_the_params_of_the_packaged_model(packaged: Path, tmp_path: Path) -> None:
    """The thresholds of the package have the same effect as thresholds that are passed as arguments."""
    few = {"points_per_side": 6, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
    data = tmp_path / "photos"
    data.mkdir()
    shutil.copy(ROOT / "samples" / "coins.png", data)
    model_with_params = package.save(package.EMBEDDED, tmp_path / "own", few)
    for name, model, params in (
        ("own", model_with_params, None),
        ("given", packaged, few),
        ("usual", packaged, {"points_per_side": 6}),
    ):
        auto_annotate(data, None, str(model), "cpu", output_dir=tmp_path / name, params=params)
    texts = {name: (tmp_path / name / "coins.txt").read_text() for name in ("own", "given", "usual")}
    assert texts["own"] == texts["given"] != texts["usual"] and texts["own"].count("\n") > 3
