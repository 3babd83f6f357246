"""Label files of drawn masks, and those made of a predictions file."""

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
from tests.scoring.batch.test_annotate import others
from tests.scoring.batch.test_batch import run

HEIGHT, WIDTH = 70, 90


def thing(category: int, mask: np.ndarray) -> LabelledObject:
    return labels.LabelledObject.from_prediction(category, {**masks.encode(mask, "rle"), "iou_score": 0.5})


@pytest.fixture
def drawn() -> list[np.ndarray]:
    """A ring with a speck beside it, a block in the ring's hole, and noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(y - 30, x - 40)
    ring = (far < 28) & (far > 14)
    ring[60:64, 80:85] = True
    block = (abs(y - 30) < 5) & (abs(x - 40) < 5)
    return [ring, block, np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.3]


def labelled(drawn: list[np.ndarray]) -> LabelledImage:
    return LabelledImage("photo.png", (HEIGHT, WIDTH), [thing(i % 2, mask) for i, mask in enumerate(drawn)])


def test_brush_run_lengths_as_label_studio_reads_them(drawn: list[np.ndarray], tmp_path: Path) -> None:
    whole = np.ones((400, 300), bool)  # runs longer than the format's longest
    tasks = labels.to_label_studio(
        [labelled(drawn), LabelledImage("big.png", whole.shape, [thing(0, whole)])], {0: "ring", 1: "block"}, "/photos/"
    )
    assert [task["data"]["image"] for task in tasks] == ["/photos/photo.png", "/photos/big.png"]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    found = others("label-studio", tmp_path / "tasks.json")
    assert [names for names, _ in found] == [["ring"], ["block"], ["ring"], ["ring"]]
    for mask, (_, pixels) in zip([*drawn, whole], found, strict=True):
        assert pixels == np.flatnonzero(mask).tolist()


def test_a_yolo_outline_joins_pieces(drawn: list[np.ndarray]) -> None:
    lines = labels.to_yolo(labelled(drawn[:2]), {0: "ring", 1: "block"}).splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1"]
    found = []
    for line in lines:
        outline = np.array(line.split()[1:], float).reshape(-1, 2) * (WIDTH, HEIGHT)
        found.append(masks.decode(json.dumps([outline.ravel().tolist()]), "polygon", (HEIGHT, WIDTH)))
    filled = drawn[0] | (np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([30, 40])[:, None, None])) < 20)
    assert pictures.iou(found[0], filled) > 0.98
    assert np.array_equal(found[1], drawn[1])


def test_numbered_pictures(drawn: list[np.ndarray]) -> None:
    picture = np.asarray(labels.draw_index_mask(labelled([drawn[1], drawn[0] | drawn[1]])))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture == 1, drawn[1])  # the smaller one is on top
    assert np.array_equal(picture == 2, drawn[0])
    many = np.asarray(labels.draw_index_mask(labelled([drawn[1]] * 300)))
    assert many.dtype == np.uint16 and many.max() == 300


@pytest.fixture(scope="module")
def predictions(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def export(predictions: Path, kind: str, output: Path, *more: str) -> None:
    done = run("export", "--predictions", predictions / "out.parquet", "--format", kind, "--output", output, *more)
    assert done.returncode == 0, done.stderr
    assert "images       2" in done.stdout and "objects      3" in done.stdout


def test_export(predictions: Path, tmp_path: Path) -> None:
    export(predictions, "coco", tmp_path / "coco.json", "--category", "what")
    coco = COCO(str(tmp_path / "coco.json"))
    assert {one["name"] for one in coco.cats.values()} == {"disc", "table"}
    for one in coco.anns.values():
        file = Path(coco.imgs[one["image_id"]]["file_name"])
        if coco.cats[one["category_id"]]["name"] == "disc":
            true = pictures.disc(*Image.open(file).size)[1]
            assert pictures.iou(coco.annToMask(one) > 0, true) > 0.9

    export(predictions, "coco-polygons", tmp_path / "polygons.json")
    outlines = COCO(str(tmp_path / "polygons.json"))
    assert [one["name"] for one in outlines.cats.values()] == ["object"]
    for one, other in zip(outlines.anns.values(), coco.anns.values(), strict=True):
        assert isinstance(one["segmentation"], list)
        lost = outlines.annToMask(one) < coco.annToMask(other)  # outlines: holes are filled
        assert lost.mean() < 0.001

    export(predictions, "yolo", tmp_path / "yolo", "--category", "what")
    assert (tmp_path / "yolo" / "classes.txt").read_text() == "disc\ntable\n"
    assert [line.split()[0] for line in (tmp_path / "yolo" / "0.txt").read_text().splitlines()] == ["0", "1"]

    export(predictions, "label-studio", tmp_path / "tasks.json", "--category", "what")
    found = others("label-studio", tmp_path / "tasks.json")
    assert [names[0] for names, _ in found] == ["disc", "table", "disc"]
    first = next(one for one in coco.anns.values() if one["id"] == 1)
    assert found[0][1] == np.flatnonzero(coco.annToMask(first)).tolist()


def test_what_cannot_be_exported(predictions: Path, tmp_path: Path) -> None:
    where = (
        "export",
        "--predictions",
        predictions / "out.parquet",
        "--format",
        "coco",
        "--output",
        tmp_path / "x.json",
    )
    wrong = run(*where, "--category", "kind")
    assert wrong.returncode == 2 and "expected one of the columns image, what" in wrong.stderr
    other = run(*where[:2], predictions / "in.csv", *where[3:])
    assert other.returncode == 2 and "in.csv cannot be exported" in other.stderr
