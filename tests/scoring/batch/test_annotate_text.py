"""`sam-endpoint annotate --text`: labels of concepts, with a packaged detector and with SAM 3."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.pyfunc import load_model
from PIL import Image
from pycocotools.coco import COCO

from sam_endpoint.model.mlflow import package
from tests import checkpoints, pictures
from tests.conftest import ROOT
from tests.detectors import owl
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import read_with_clients
from tests.warm import python

TEXTS = ["cups", "red spoon"]
SIDES = [60, 66, 72]


@pytest.fixture(scope="module", params=["detector", "sam3"])
def model(request: pytest.FixtureRequest, sam_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Package a SAM with a detector, and a SAM 3."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sam3":
        return package.save(checkpoints.save_sam3(folder / "sam3"), folder / "model", {"concept_thresh": 0.0})
    torch.manual_seed(0)
    owl(folder / "owl")
    return package.save(sam_folder, folder / "model", {"concept_thresh": 0.0}, detector=folder / "owl")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three images, one of them in a subfolder, and a broken image."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "more").mkdir()
    for side, name in zip(SIDES, ("a.png", "b.png", "more/c.png"), strict=True):
        Image.fromarray(pictures.clutter(50, side, side)).save(folder / name)
    (folder / "broken.png").write_bytes(b"broken")
    return folder


def test_writes_the_instances_of_each_text_as_a_class_of_every_label_file(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("annotate", "--model", model, "--data", data, "--text", "cups, red  spoon", "--output", out)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "images       4 (0 done before, 1 failed)" in done.stdout and "failed       broken.png" in done.stdout
    assert yaml.safe_load((out / "data.yaml").read_text())["names"] == dict(enumerate(TEXTS))
    coco = COCO(str(out / "annotations.json"))
    assert [category["name"] for category in coco.cats.values()] == TEXTS
    assert sorted(image["file_name"] for image in coco.imgs.values()) == ["a.png", "b.png", "more/c.png"]
    kinds = set()
    for image in coco.imgs.values():
        row = {"image": (data / image["file_name"]).read_bytes(), "input_text": json.dumps(TEXTS)}
        answer: Any = load_model(str(model)).predict(pd.DataFrame([row]), params={"mask_encoding": "rle"})
        expected = [
            (entry["concept_index"], entry["mask_per_prediction"][0])
            for entry in answer["predictions"][0]
            if entry["mask_per_prediction"][0]["area"]
        ]
        annotations = coco.imgToAnns[image["id"]]
        assert len(annotations) == len(expected) > 0
        for annotation, (index, mask) in zip(annotations, expected, strict=True):
            assert annotation["category_id"] == index
            assert annotation["segmentation"]["counts"] == mask["encoded_binary_mask"]
            assert annotation["score"] == pytest.approx(mask["iou_score"], abs=1e-6)
            kinds.add(index)
        lines = (out / "labels" / image["file_name"]).with_suffix(".txt").read_text().splitlines()
        assert [int(line.split()[0]) for line in lines] == [index for index, _ in expected]
        numbers = np.asarray(Image.open((out / "masks" / image["file_name"]).with_suffix(".png")))
        decoded = [coco.annToMask(annotation) > 0 for annotation in annotations]
        assert np.array_equal(numbers > 0, np.any(decoded, axis=0))
        assert all(decoded[number - 1][numbers == number].all() for number in np.unique(numbers[numbers > 0]))
    assert kinds == {0, 1}
    assert len(coco.anns) == sum_of_objects(done.stdout)

    done = run(*command)
    assert "images       4 (3 done before, 1 failed)" in done.stdout, done.stderr
    done = run(*command[:-3], "cups", "--output", out)
    assert done.returncode == 2 and "the labels of another job" in done.stderr


def sum_of_objects(output: str) -> int:
    """Return the number of objects that the command printed."""
    return sum(int(line.split()[1]) for line in output.splitlines() if line.startswith("objects"))


def test_other_projects_read_the_classes(model: Path, data: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes((data / "a.png").read_bytes())
    done = run("annotate", "--model", model, "--data", folder, "--text", '["cups", "red spoon"]', "--output", out)
    assert done.returncode == 0, done.stderr
    coco = COCO(str(out / "annotations.json"))
    read = read_with_clients("supervision-coco", folder, out / "annotations.json")
    assert read["names"] == TEXTS
    assert sorted(read["images"]["a.png"]["classes"]) == sorted(entry["category_id"] for entry in coco.anns.values())


def test_a_killed_job_continues_and_writes_the_output_of_an_undisturbed_job(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(12):
        Image.fromarray(pictures.clutter(40, 50, number)).save(data / f"{number:02}.png")
    command = ("annotate", "--model", model, "--data", data, "--text", "cups, spoon", "--output")
    assert run(*command, tmp_path / "whole").returncode == 0
    words = [python(), "-m", "sam_endpoint", *map(str, command), str(tmp_path / "out")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list((tmp_path / "out" / "objects").glob("*.json"))) < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    process.wait()
    before = len(list((tmp_path / "out" / "objects").glob("*.json")))
    assert 2 <= before < 12 and not (tmp_path / "out" / "annotations.json").exists()
    done = run(*command, tmp_path / "out")
    assert f"images       12 ({before} done before, 0 failed)" in done.stdout, done.stderr
    for file in ("annotations.json", "labels/07.txt", "masks/11.png"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_model_without_text_is_an_error_before_any_work(packaged: Path, data: Path, tmp_path: Path) -> None:
    done = run("annotate", "--model", packaged, "--data", data, "--text", "cup", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --text: expected a model that takes text (package --checkpoint facebook/sam3, or add --detector "
        "IDEA-Research/grounding-dino-tiny to `sam-endpoint package`), got a text, and this model takes points, boxes "
        "and exemplars\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text with at least one letter, digit or symbol, got an empty text"),
        ("cup,,spoon", "expected a text with at least one letter, digit or symbol, got an empty text"),
        ("[]", "expected at least one text, got an empty list"),
        ("[", "expected texts separated by commas, or a JSON list, got broken JSON"),
        ('["cup", 3]', 'expected one text such as "coffee cup", or a list of texts, got the number 3'),
        (",".join(f"cup {i}" for i in range(200)), "expected at most 16 texts (run the command once for every 16"),
        (json.dumps([f"cup {i}" for i in range(200)]), "expected at most 16 texts (run the command once for every 16"),
        ("x" * 10_000, "expected a text of at most 200 characters, got text of 10000 characters"),
        ("cup\x07", "without control characters and unpaired surrogates"),
        ("cup, \u200b\u0301", "expected a text with at least one letter, digit or symbol"),
        ("caf\u00e9, cafe\u0301", "expected 2 different texts, got 1"),
    ],
)
def test_a_bad_text_is_an_error_before_the_model_is_opened(text: str, message: str, data: Path, tmp_path: Path) -> None:
    done = run("annotate", "--model", "no model", "--data", data, "--text", text, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "error: --text: " in done.stderr and message in done.stderr and len(done.stderr) < 300
    assert not (tmp_path / "out").exists()


def test_a_text_that_the_model_cannot_read_is_an_error_before_any_work(model: Path, data: Path, tmp_path: Path) -> None:
    text = f"cup, {'x y ' * 40}"
    done = run("annotate", "--model", model, "--data", data, "--text", text, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert re.search(
        r"error: --text, text 2: expected a text of at most \d+ tokens( \(.*\))?, got \d+ tokens", done.stderr
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--conf", "0.5"), "--conf has no effect on --text; the minimum score of --text is --params"),
        (("--classes", "cup"), "--classes has no effect on --text"),
        (("--detector", "x"), "not allowed with argument --text"),
    ],
)
def test_options_that_do_not_fit_texts_are_errors(
    options: tuple[str, str], message: str, data: Path, tmp_path: Path
) -> None:
    done = run("annotate", "--data", data, "--text", "cup", "--output", tmp_path / "out", *options)
    assert done.returncode == 2 and message in done.stderr
