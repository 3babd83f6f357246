"""Label files of drawn masks and of a predictions file, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sam_endpoint.model import masks
from sam_endpoint.scoring.batch import labels
from sam_endpoint.scoring.batch.labels import LabelledImage, LabelledObject
from tests import pictures
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import read_with_clients

HEIGHT, WIDTH = 70, 90


def to_thing(category: int, mask: np.ndarray) -> LabelledObject:
    """Return a mask as an object of a category."""
    return labels.LabelledObject.from_prediction(category, {**masks.encode(mask, "rle"), "iou_score": 0.5})


@pytest.fixture
def drawn_masks() -> list[np.ndarray]:
    """Return three masks: a ring with a speck next to it, a block in the hole of the ring, and noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(y - 30, x - 40)
    ring = (far < 28) & (far > 14)
    ring[60:64, 80:85] = True
    block = (abs(y - 30) < 5) & (abs(x - 40) < 5)
    return [ring, block, np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3]


def labelled(drawn_masks: list[np.ndarray]) -> LabelledImage:
    """Return masks as the objects of an image, with categories 0 and 1 in turn."""
    return LabelledImage("photo.png", (HEIGHT, WIDTH), [to_thing(i % 2, mask) for i, mask in enumerate(drawn_masks)])


def test_label_studio_reads_the_same_masks_from_brush_run_lengths(
    drawn_masks: list[np.ndarray], tmp_path: Path
) -> None:
    whole = np.ones((400, 300), bool)  # needs runs that are longer than the longest run of the format
    tasks = labels.to_label_studio(
        [labelled(drawn_masks), LabelledImage("big.png", whole.shape, [to_thing(0, whole)])],
        {0: "ring", 1: "block"},
        "/photos/",
    )
    assert [task["data"]["image"] for task in tasks] == ["/photos/photo.png", "/photos/big.png"]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    regions = read_with_clients("label-studio", tmp_path / "tasks.json")
    assert [names for names, _ in regions] == [["ring"], ["block"], ["ring"], ["ring"]]
    for mask, (_, pixels) in zip([*drawn_masks, whole], regions, strict=True):
        assert pixels == np.flatnonzero(mask).tolist()


def test_a_yolo_outline_joins_the_pieces_of_a_mask(drawn_masks: list[np.ndarray]) -> None:
    lines = labels.to_yolo(labelled(drawn_masks[:2]), {0: "ring", 1: "block"}).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    decoded = []
    for line in lines:
        outline = np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
        decoded.append(masks.decode(json.dumps([outline.ravel().tolist()]), "polygon", (HEIGHT, WIDTH)))
    filled = drawn_masks[0] | (np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([30, 40])[:, None, None])) < 20)
    assert pictures.iou(decoded[0], filled) > 0.98
    assert np.array_equal(decoded[1], drawn_masks[1])


def test_numbered_masks_have_the_smallest_mask_on_top(drawn_masks: list[np.ndarray]) -> None:
    picture = np.asarray(labels.draw_index_mask(labelled([drawn_masks[1], drawn_masks[0] | drawn_masks[1]])))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture == 1, drawn_masks[1])  # the smaller mask is on top
    assert np.array_equal(picture == 2, drawn_masks[0])
    many = np.asarray(labels.draw_index_mask(labelled([drawn_masks[1]] * 300)))
    assert many.dtype == np.uint16 and many.max() == 300


@pytest.fixture(scope="module")
def predictions(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score a table of four rows, and return the folder of `out.parquet`."""
    folder = tmp_path_factory.mktemp("predictions")
    rows = ["image,what,input_boxes,multimask_output"]
    for i, size in enumerate([(240, 160), (220, 180)]):
        (folder / f"{i}.png").write_bytes(pictures.disc(*size)[0])
        rows.append(f'{folder}/{i}.png,disc,"[[66, 36, 156, 126]]",false')
    rows.append(f'{folder}/0.png,table,"[[0, 0, 240, 160]]",true')
    rows.append(f'{folder}/none.png,disc,"[[66, 36, 156, 126]]",false')
    (folder / "in.csv").write_text("\n".join(rows))
    done = run("--model", packaged, "--input", folder / "in.csv", "--output", folder / "out.parquet")
    assert done.returncode == 0, done.stderr
    return folder


def export_predictions(predictions: Path, kind: str, output: Path, *arguments: str) -> None:
    """Export the predictions, and check the numbers of images and objects."""
    done = run("export", "--predictions", predictions / "out.parquet", "--format", kind, "--output", output, *arguments)
    assert done.returncode == 0, done.stderr
    assert "images       2" in done.stdout and "objects      3" in done.stdout


def test_other_packages_read_the_same_masks_from_every_format(predictions: Path, tmp_path: Path) -> None:
    export_predictions(predictions, "coco", tmp_path / "coco.json", "--category", "what")
    coco = COCO(str(tmp_path / "coco.json"))
    assert {category["name"] for category in coco.cats.values()} == {"disc", "table"}
    for annotation in coco.anns.values():
        file = Path(coco.imgs[annotation["image_id"]]["file_name"])
        if coco.cats[annotation["category_id"]]["name"] == "disc":
            true = pictures.disc(*Image.open(file).size)[1]
            assert pictures.iou(coco.annToMask(annotation) > 0, true) > 0.9

    export_predictions(predictions, "coco-polygons", tmp_path / "polygons.json")
    outlines = COCO(str(tmp_path / "polygons.json"))
    assert [category["name"] for category in outlines.cats.values()] == ["object"]
    for outline, annotation in zip(outlines.anns.values(), coco.anns.values(), strict=True):
        assert isinstance(outline["segmentation"], list)
        missing = outlines.annToMask(outline) < coco.annToMask(annotation)  # outlines fill holes
        assert missing.mean() < 0.001

    export_predictions(predictions, "yolo", tmp_path / "yolo", "--category", "what")
    assert (tmp_path / "yolo" / "classes.txt").read_text() == "disc\ntable\n"
    assert [line.split()[0] for line in (tmp_path / "yolo" / "0.txt").read_text().splitlines()] == ["0", "1"]

    export_predictions(predictions, "label-studio", tmp_path / "tasks.json", "--category", "what")
    regions = read_with_clients("label-studio", tmp_path / "tasks.json")
    assert [names[0] for names, _ in regions] == ["disc", "table", "disc"]
    first = next(annotation for annotation in coco.anns.values() if annotation["id"] == 1)
    assert regions[0][1] == np.flatnonzero(coco.annToMask(first)).tolist()


def test_rejects_an_unknown_column_and_a_file_without_predictions(predictions: Path, tmp_path: Path) -> None:
    options = ("--format", "coco", "--output", tmp_path / "x.json")
    done = run("export", "--predictions", predictions / "out.parquet", *options, "--category", "kind")
    assert done.returncode == 2 and "expected one of the columns image, what" in done.stderr
    done = run("export", "--predictions", predictions / "in.csv", *options)
    assert done.returncode == 2 and "in.csv cannot be exported" in done.stderr
