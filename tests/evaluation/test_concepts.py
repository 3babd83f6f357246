"""The evaluation of concepts: cgF1 computed by hand, and the command on data whose results are known."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc import load_model
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam_endpoint.evaluation.concepts.metrics import PairResult, count, matthews_correlation, summarize, sweep
from sam_endpoint.model.mlflow import package
from tests import checkpoints, pictures
from tests.coins import COINS, PICTURE
from tests.conftest import ROOT
from tests.detectors import owl
from tests.evaluation.coco_files import evaluate_here, evaluate_logged, write_json

SIZE = (100, 120)  # (height, width)
TEXTS = ["cups", "spoon", "plate", "fork"]


def pair(ious: list[list[float]], scores: list[float], true: int) -> PairResult:
    """Return the result of a pair with a number of true instances."""
    return PairResult(1, 1, np.array(ious, float).reshape(len(scores), true), np.array(scores, float))


# Four positive pairs and three negative pairs, at a minimum score of 0.5:
PAIRS = [
    pair([[0.97, 0.0], [0.0, 0.72]], [0.9, 0.8], 2),  # both instances are found, one of them with an IoU of 0.72
    pair([[0.9, 0.82], [0.62, 0.0]], [0.9, 0.7], 2),  # the total of 0.82 and 0.62 is higher than 0.9
    pair([[0.96], [0.96]], [0.9, 0.4], 1),  # a duplicate below the minimum score
    pair([[0.9]], [0.3], 1),  # nothing above the minimum score
    pair([], [], 0),  # absent, and nothing is found
    pair([[], []], [0.6, 0.2], 0),  # absent, but an instance is found
    pair([[]], [0.4], 0),  # absent, and the instance has too low a score
]


def test_cgf1_is_the_product_of_pmf1_and_the_correlation_of_presence() -> None:
    """Matched IoUs 0.97, 0.72, 0.82, 0.62 and 0.96; 5 predicted and 6 true instances in positive pairs.

    The number of matches is 5 up to the threshold 0.6, 4 up to 0.7, 3 up to 0.8, and 2 up to 0.95. Presence: 3 of 4
    positive pairs are found, and 1 of 3 negative pairs has an instance.
    """
    matches = [5, 5, 5, 4, 4, 3, 3, 2, 2, 2]
    f1 = [2 * matched / (5 + 6) for matched in matches]
    mcc = (3 * 2 - 1 * 1) / math.sqrt((3 + 1) * (3 + 1) * (2 + 1) * (2 + 1))
    counts = count(PAIRS, 0.5)
    assert counts.matched.tolist() == matches and (counts.predicted, counts.true) == (5, 6)
    assert counts.presence.tolist() == [[2, 1], [1, 3]]
    assert summarize(counts) == {
        "cgF1": pytest.approx(sum(f1) / 10 * mcc, abs=1e-4),
        "pmF1": pytest.approx(sum(f1) / 10, abs=1e-4),
        "IL_MCC": pytest.approx(5 / 12, abs=1e-4),
        "pmF1 50": pytest.approx(10 / 11, abs=1e-4),
        "cgF1 50": pytest.approx(10 / 11 * 5 / 12, abs=1e-4),
        "pmF1 75": pytest.approx(6 / 11, abs=1e-4),
        "cgF1 75": pytest.approx(6 / 11 * 5 / 12, abs=1e-4),
        "IL recall": 0.75,
        "IL precision": 0.75,
    }


def test_instances_of_absent_concepts_change_only_the_correlation() -> None:
    """In SAM 3's metric, false positives in negative pairs do not count in pmF1."""
    more = [*PAIRS[:-1], pair([[]] * 5, [0.9] * 5, 0)]
    before, after = summarize(count(PAIRS, 0.5)), summarize(count(more, 0.5))
    assert after["pmF1"] == before["pmF1"]
    assert after["IL_MCC"] == pytest.approx((3 * 1 - 2 * 1) / math.sqrt(5 * 4 * 3 * 2), abs=1e-4)


def test_metrics_that_the_data_does_not_determine_are_none() -> None:
    positive, negative = summarize(count(PAIRS[:4], 0.5)), summarize(count(PAIRS[4:], 0.5))
    assert positive["pmF1"] == pytest.approx(0.6364, abs=1e-4)
    assert positive["IL_MCC"] is positive["cgF1"] is positive["cgF1 50"] is None
    assert negative["pmF1"] is negative["IL_MCC"] is negative["cgF1"] is negative["IL recall"] is None
    assert matthews_correlation(np.array([[0, 3], [0, 4]])) == 0  # every concept is found in every image
    assert matthews_correlation(np.array([[3, 0], [0, 4]])) == 1
    assert matthews_correlation(np.array([[0, 3], [4, 0]])) == -1


def test_the_sweep_computes_the_metrics_at_each_minimum_score() -> None:
    low, high = sweep(PAIRS, [0.1, 0.95])
    assert low["min_score"] == 0.1 and low["IL recall"] == 1 and high["IL recall"] == high["pmF1"] == 0


@pytest.fixture(scope="module")
def model(sam_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Package a small SAM with a small detector, whose scores differ between images and texts."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    owl(folder / "owl")
    return package.save(sam_folder, folder / "model", {"concept_thresh": 0.0}, detector=folder / "owl")


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[int, str], list[Any]]]:
    """Write three images, and return their folder and the instances of each text in each image."""
    folder = tmp_path_factory.mktemp("images")
    instances: dict[tuple[int, str], list[Any]] = {}
    for image_id in range(3):
        file = folder / f"{image_id}.png"
        Image.fromarray(pictures.clutter(*SIZE, image_id)).save(file)
        row = pd.DataFrame([{"image": file.read_bytes(), "input_text": json.dumps(TEXTS)}])
        answer: Any = load_model(str(model)).predict(row, params={"mask_encoding": "rle"})
        for text in TEXTS:
            own = [entry for entry in answer["predictions"][0] if entry["concept"] == text]
            instances[image_id, text] = [entry["mask_per_prediction"][0] for entry in own]
    return folder, instances


def coco_of(instances: dict[tuple[int, str], list[Any]], min_score: float) -> dict[str, Any]:
    """Return a COCO file whose annotations are the instances with at least a score."""
    annotations = [
        {
            "image_id": image_id,
            "category_id": 10 * TEXTS.index(text),
            "segmentation": {"size": list(SIZE), "counts": mask["encoded_binary_mask"]},
            "area": mask["area"],
            "bbox": mask["bbox"],
            "iscrowd": 0,
        }
        for (image_id, text), masks in instances.items()
        for mask in masks
        if mask["iou_score"] >= min_score and mask["area"]
    ]
    return {
        "images": [
            {"id": image_id, "file_name": f"{image_id}.png", "height": SIZE[0], "width": SIZE[1]}
            for image_id in range(3)
        ],
        "categories": [{"id": 10 * number, "name": text} for number, text in enumerate(TEXTS)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
    }


def threshold_between(instances: dict[tuple[int, str], list[Any]]) -> float:
    """Return a score that some texts exceed in some images."""
    best = sorted(max((mask["iou_score"] for mask in masks), default=0.0) for masks in instances.values())
    return float(np.mean(best[len(best) // 2 - 1 : len(best) // 2 + 1]))


def test_text_against_annotations_that_are_the_models_own_instances(
    model: Path, found: tuple[Path, dict[tuple[int, str], list[Any]]], tmp_path: Path
) -> None:
    """With its own instances as the truth, a model has a cgF1 of 1. Without one of them, the result is known too."""
    folder, instances = found
    min_score = threshold_between(instances)
    content = coco_of(instances, min_score)
    data = write_json(tmp_path, "data.json", content)
    options = ["--model", model, "--images", folder, "--concepts", "text", "--min-score", min_score]
    done = evaluate_here(tmp_path, *options, "--data", data, "--output", "out.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    present = {(entry["image_id"], entry["category_id"]) for entry in content["annotations"]}
    assert 0 < len(present) < 12
    assert (report["positive pairs"], report["negative pairs"]) == (len(present), 12 - len(present))
    metrics = report["concept metrics"]
    assert metrics["cgF1"] == metrics["pmF1"] == metrics["IL_MCC"] == 1
    assert f"{'cgF1':18}{1:9.3f}" in done.stdout.splitlines()

    # AP uses instances below the minimum score too. It is that of pycocotools.
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO(str(data))
        results = [
            {
                "image_id": image_id,
                "category_id": 10 * TEXTS.index(text),
                "segmentation": {"size": list(SIZE), "counts": mask["encoded_binary_mask"]},
                "score": mask["iou_score"],
            }
            for (image_id, text), masks in instances.items()
            for mask in masks
            if mask["iou_score"] >= 0.01
        ]
        evaluation = COCOeval(true, true.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert report["average precision"]["AP"] == pytest.approx(evaluation.stats[0], abs=1e-3)
    assert report["average precision"]["AR 100"] == pytest.approx(evaluation.stats[8], abs=1e-3)

    # One annotation less: its instance is a false positive if its pair has others, else the pair becomes negative.
    pairs = [(entry["image_id"], entry["category_id"]) for entry in content["annotations"]]
    several = next(number for number, own in enumerate(pairs) if pairs.count(own) > 1)
    del content["annotations"][several]
    write_json(tmp_path, "data.json", content)
    done = evaluate_here(tmp_path, *options, "--data", data, "--output", "out.json", "--negatives", 0)
    report = json.loads((tmp_path / "out.json").read_text())
    number = len(content["annotations"])
    assert report["concept metrics"]["pmF1"] == pytest.approx(2 * number / (2 * number + 1), abs=1e-4)
    assert report["negative pairs"] == 0 and report["concept metrics"]["cgF1"] is None
    assert f"{'cgF1':18}{'-':>9}" in done.stdout.splitlines()


def test_negatives_are_limited_by_the_option_and_by_the_lists_of_lvis(
    model: Path, found: tuple[Path, dict[tuple[int, str], list[Any]]], tmp_path: Path
) -> None:
    folder, instances = found
    content = coco_of(instances, 2.0)
    content["annotations"] = []
    options = ["--model", model, "--images", folder, "--concepts", "text", "--output", "out.json"]

    def negatives(*arguments: object) -> int:
        data = write_json(tmp_path, "data.json", content)
        done = evaluate_here(tmp_path, *options, "--data", data, *arguments)
        assert done.returncode == 0, done.stderr
        return int(json.loads((tmp_path / "out.json").read_text())["negative pairs"])

    assert negatives() == 12
    assert negatives("--negatives", 1) == 3
    for image in content["images"]:
        image["neg_category_ids"] = [0, 30]
    assert negatives() == 6


def test_categories_and_regions_that_cannot_be_evaluated_are_counted(
    model: Path, found: tuple[Path, dict[tuple[int, str], list[Any]]], tmp_path: Path
) -> None:
    folder, instances = found
    content = coco_of(instances, threshold_between(instances))
    content["annotations"][0]["iscrowd"] = 1
    names = [" cups ", "", "x" * 300, None, "abcdefghijklmnopqrstuvw"]
    content["categories"] += [{"id": 100 + number, "name": name} for number, name in enumerate(names)]
    data = write_json(tmp_path, "data.json", content)
    done = evaluate_here(
        tmp_path, "--model", model, "--data", data, "--images", folder, "--concepts", "text", "--output", "out.json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    problems = {name: problem["count"] for name, problem in report["problems"].items()}
    assert problems["categories with the name of another category, left out"] == 1
    assert problems["categories whose name is not a text, left out"] == 3
    assert problems["categories whose name model cannot search for, left out"] == 1
    assert problems["pairs of an image and a category with a crowd region, left out of cgF1"] == 1
    assert report["positive pairs"] + report["negative pairs"] == 11


def ellipse(box: list[float]) -> list[float]:
    """Return the outline of the ellipse in a box, as a COCO polygon."""
    x1, y1, x2, y2 = box
    turns = np.linspace(0, math.tau, 40, endpoint=False)
    x, y = (x1 + x2) / 2 + (x2 - x1) / 2 * np.cos(turns), (y1 + y2) / 2 + (y2 - y1) / 2 * np.sin(turns)
    return [float(number) for number in np.stack([x, y], 1).ravel()]


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a COCO file of the coins, the first of which is the example, and of a crop with a single coin."""
    folder = tmp_path_factory.mktemp("coins")
    single = (240, 90, 302, 150)
    picture = Image.open(PICTURE)
    picture.save(folder / "coins.png")
    picture.crop(single).save(folder / "single.png")
    outlines = [(1, coin) for coin in [COINS[10], *COINS[:10], *COINS[11:]]]
    outlines.append((2, COINS[10] - np.array([*single[:2], *single[:2]])))
    content = {
        "images": [
            {"id": 1, "file_name": "coins.png", "width": 384, "height": 303},
            {"id": 2, "file_name": "single.png", "width": 62, "height": 60},
        ],
        "categories": [{"id": 1, "name": "coin"}, {"id": 2, "name": "banknote"}],
        "annotations": [
            {"id": number, "image_id": image_id, "category_id": 1, "segmentation": [ellipse(box.tolist())]}
            for number, (image_id, box) in enumerate(outlines, 1)
        ],
    }
    return write_json(folder, "coins.json", content)


def test_one_example_is_to_find_the_other_coins(coins: Path, tmp_path: Path) -> None:
    """The example itself does not count. The image with a single coin is a negative: nothing else is to be found."""
    done = evaluate_logged(
        tmp_path, "--model", package.EMBEDDED, "--data", coins, "--concepts", "example", "--output", "out.json",
        "--pictures", "pictures", "--sheet", "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["positive pairs"], report["negative pairs"], report["instances"]) == (1, 1, 23)
    assert report["min score"] == 0.9
    metrics = report["concept metrics"]
    assert metrics["pmF1 50"] > 0.9 and metrics["IL_MCC"] == 1 and metrics["cgF1 50"] == metrics["pmF1 50"]
    assert report["average precision"]["AP50"] > 0.9
    assert next(iter(report["pmF1 by IoU"])) == "0.50" and report["pmF1 by IoU"]["0.50"] == metrics["pmF1 50"]
    assert [row["category"] for row in report["categories"]] == ["coin"]
    assert Image.open(tmp_path / "pictures" / "concepts.png").width > 800
    assert Image.open(tmp_path / "sheet.png").width > 400
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").search_runs(["0"])
    assert run.data.metrics["concept metrics/pmF1 50"] == metrics["pmF1 50"]
    assert run.data.params["concepts"] == "example"


def test_two_models_by_example_are_reported_side_by_side(coins: Path, tmp_path: Path) -> None:
    """The second model is a small SAM 3, which finds examples with its own detector."""
    sam3 = checkpoints.save_sam3(tmp_path / "sam3")
    done = evaluate_here(
        tmp_path, "--model", package.EMBEDDED, "--model", sam3, "--data", coins, "--concepts", "example",
        "--output", "out.json", "--pictures", ".",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "out.json").read_text())["models"]
    assert (first["min score"], second["min score"]) == (0.9, 0.5)
    assert first["instances"] == second["instances"] == 23
    assert (tmp_path / "concepts.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--data", "coins.json", "--concepts", "text"),
            "--concepts text, model sam-tiny: expected a model that takes text (package --checkpoint facebook/sam3, or",
        ),
        (("--data", "scenes", "--concepts", "text"), "--concepts needs a COCO instances file as --data"),
        (("--data", "coins.json", "--negatives", "3"), "--negatives and --min-score need --concepts"),
        (
            ("--data", "coins.json", "--concepts", "text", "--negatives", "-1"),
            "--negatives: expected a whole number of at least 0",
        ),
        (
            ("--data", "coins.json", "--concepts", "example", "--min-score", "7"),
            "--min-score: expected a number from 0 to 1, got 7",
        ),
    ],
)
def test_options_that_do_not_fit_are_errors(options: tuple[str, ...], message: str, coins: Path) -> None:
    done = evaluate_here(coins.parent, "--model", ROOT / "checkpoints" / "sam-tiny", *options)
    assert done.returncode == 2 and message in done.stderr
