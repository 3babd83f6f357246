"""Folders of images in, label files out, read back by the packages that people use them with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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
from tests.scoring.batch.test_batch import run

BOX = (66, 36, 156, 126)  # around the disc
SIZES = {"a.png": (240, 160), "b.png": (220, 180), "more/c.png": (200, 150)}


def others(how: str, *files: Path) -> Any:
    """What another package reads in label files."""
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    command = [str(python), str(Path(__file__).with_name("readers.py")), how, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures with a disc, one of them in a folder below, and one that is broken."""
    for name, size in SIZES.items():
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pictures.disc(*size)[0])
    (tmp_path / "data" / "broken.png").write_bytes(b"broken")
    return tmp_path / "data"


def yolo_boxes(folder: Path) -> Path:
    for name, (width, height) in SIZES.items():
        x1, y1, x2, y2 = BOX
        numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        file = (folder / "boxes" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1 " + " ".join(map(str, numbers)) + "\n")
    (folder / "boxes" / "data.yaml").write_text("names: [square, disc]\n")
    return folder / "boxes"


def coco_boxes(folder: Path) -> Path:
    x1, y1, x2, y2 = BOX
    given = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(SIZES)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": [x1, y1, x2 - x1, y2 - y1]} for i in range(len(SIZES))
        ],
        "categories": [{"id": 7, "name": "disc"}],
    }
    (folder / "boxes.json").write_text(json.dumps(given))
    return folder / "boxes.json"


def voc_boxes(folder: Path) -> Path:
    x1, y1, x2, y2 = BOX
    for name in SIZES:
        file = (folder / "boxes" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        edges = f"<xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        file.write_text(f"<annotation><object><name>disc</name><bndbox>{edges}</bndbox></object></annotation>")
    return folder / "boxes"


def opened(segmenter: Segmenter) -> OpenedModel:
    return OpenedModel("tiny", engine_of(segmenter, local_paths=True))


@pytest.mark.parametrize("save", [yolo_boxes, coco_boxes, voc_boxes])
def test_boxes_that_exist_become_masks(save: Any, tiny: Segmenter, data: Path, tmp_path: Path) -> None:
    given = boxes.read(save(tmp_path))
    found = dict(
        annotate_images(opened(tiny), list_images(data), finder_from_labels(given.match(list_images(data), data)))
    )
    assert list(found) == ["a.png", "b.png", "broken.png", "more/c.png"]
    assert "image" in str(found.pop("broken.png"))
    for name, labelled in found.items():
        assert isinstance(labelled, LabelledImage) and labelled.size == SIZES[name][::-1]
        (thing,) = labelled.objects
        assert given.names[thing.category] == "disc"
        assert pictures.iou(labelled.mask(thing), pictures.disc(*SIZES[name])[1]) > 0.9
        assert given.of(name, labelled.size).detections[0].box.tolist() == pytest.approx(BOX, abs=1e-3)


def test_the_command(packaged: Path, data: Path, tmp_path: Path) -> None:
    """Label files of every kind, a broken image that costs nothing but itself, and a second run that does only that."""
    out = tmp_path / "out"
    command = ("annotate", "--model", packaged, "--data", data, "--boxes", yolo_boxes(tmp_path), "--output", out)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "images       4 (0 done before, 1 failed)" in done.stdout
    assert "objects      3 disc" in done.stdout
    assert "broken.png" in done.stdout

    coco = COCO(str(out / "annotations.json"))
    assert {one["file_name"] for one in coco.imgs.values()} == set(SIZES)
    for one in coco.anns.values():
        name = coco.imgs[one["image_id"]]["file_name"]
        mask = coco.annToMask(one)
        true = pictures.disc(*SIZES[name])[1]
        assert pictures.iou(mask > 0, true) > 0.9
        assert one["area"] == mask.sum() and coco.cats[one["category_id"]]["name"] == "disc"
        numbered = np.asarray(Image.open((out / "masks" / name).with_suffix(".png")))
        assert np.array_equal(numbered, mask)

    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "square", 1: "disc"}
    assert Image.open(out / "sheet.png").size[0] > 300

    (data / "broken.png").unlink()
    read = others("supervision-coco", data, out / "annotations.json")
    assert read["names"] == ["square", "disc"] or read["names"] == ["disc"]
    for one in coco.anns.values():
        name = coco.imgs[one["image_id"]]["file_name"].rpartition("/")[2]
        assert read["images"][name]["masks"] == [np.flatnonzero(coco.annToMask(one)).tolist()]
    read = others("supervision-yolo", data, out / "labels", out / "data.yaml")
    assert read["names"] == ["square", "disc"]
    for name in ("a.png", "b.png"):  # it does not look below the folder
        mask = np.zeros(SIZES[name][::-1], bool)
        mask.flat[read["images"][name]["masks"][0]] = True
        assert read["images"][name]["classes"] == [1]
        assert pictures.iou(mask, pictures.disc(*SIZES[name])[1]) > 0.9

    stamps = {file: file.stat().st_mtime_ns for file in (out / "objects").rglob("*.json")}
    (data / "d.png").write_bytes(pictures.disc(150, 130)[0])
    again = run(*command)
    assert "images       4 (3 done before, 0 failed)" in again.stdout, again.stderr
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert (out / "labels" / "d.txt").read_text() == ""  # no boxes are known of it: background
    other = run(*command, "--conf", "0.5")
    assert (
        other.returncode == 2
        and "holds other files, or the labels of another job; choose another --output" in other.stderr
    )


def test_auto_annotate_finds_everything(tiny: Segmenter, data: Path, tmp_path: Path, capsys: Any) -> None:
    """Ultralytics' function: text files beside the data; what has one already is left alone."""
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


def test_names_of_models(tmp_path: Path) -> None:
    assert annotate.ULTRALYTICS["sam_b.pt"] == "facebook/sam-vit-base"
    assert annotate.ULTRALYTICS["sam2.1_l.pt"] == "facebook/sam2.1-hiera-large"
    with pytest.raises(BadModel, match="no model can be loaded from"):
        annotate.open_sam(str(tmp_path))


def test_what_cannot_be_annotated(data: Path, tmp_path: Path) -> None:
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


def test_the_models_own_params_are_those_of_everything(packaged: Path, tmp_path: Path) -> None:
    """A model packaged with other thresholds finds with them what it finds when they are given."""
    few = {"points_per_side": 6, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.2}
    data = tmp_path / "photos"
    data.mkdir()
    shutil.copy(ROOT / "samples" / "coins.png", data)
    own = package.save(package.EMBEDDED, tmp_path / "own", few)
    for name, model, params in (
        ("own", own, None),
        ("given", packaged, few),
        ("usual", packaged, {"points_per_side": 6}),
    ):
        auto_annotate(data, None, str(model), "cpu", output_dir=tmp_path / name, params=params)
    texts = {name: (tmp_path / name / "coins.txt").read_text() for name in ("own", "given", "usual")}
    assert texts["own"] == texts["given"] != texts["usual"] and texts["own"].count("\n") > 3
