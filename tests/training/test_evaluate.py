"""The evaluation's command, on drawn scenes and on COCO files made of them, with the embedded model."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file, save_file

from model import package
from model.prompts import Prompt
from model.segmenter import Segmenter
from tests.training.labelled import data_set, judged, logged, polygons, write
from training.evaluate import evaluate, main, names_of
from training.ground_truth import Scenes
from training.judge import PROMPTS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report on the first three scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    done = judged(folder, "--model", package.EMBEDDED, "--data", "scenes", "--count", 3, "--output", "out.json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


@pytest.fixture(scope="module")
def compared(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The embedded model, packaged, beside a copy with noise on its weights, on three scenes as a COCO file."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(package.EMBEDDED, folder / "spoilt")
    weights = load_file(folder / "spoilt" / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if weight.ndim > 1 and "position" not in name:
            weights[name] = weight + 0.2 * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / "spoilt" / "model.safetensors", metadata={"format": "pt"})
    write(folder, "data.json", data_set(folder, 3))
    models = ("--model", packaged, "--model", "spoilt")
    done = logged(folder, *models, "--data", "data.json", "--output", "out/two.json", "--pictures", "out")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_same_things_have_the_same_figures_from_either_source(
    scenes: dict[str, Any], compared: tuple[Path, str]
) -> None:
    assert scenes["model"] == "sam-tiny" and scenes["scenes"] == 3
    first = json.loads((compared[0] / "out" / "two.json").read_text())["models"][0]
    assert first["model"] == "model" and first["images"] == 3 and first["data"] == "data.json"
    for part in ("figures", "boundary"):
        assert first[part]["all"] == scenes[part]["all"], part
    assert first["calibration"] == scenes["calibration"] and first["encodings"] == scenes["encodings"]
    # Small is 1 % of a scene, but 32 x 32 pixels of a photograph.
    assert first["figures"]["small"]["things"] != scenes["figures"]["small"]["things"]
    assert scenes["problems"] == first["problems"] == {}


def test_figures_are_plausible_ones(scenes: dict[str, Any]) -> None:
    figures = scenes["figures"]["all"]
    assert figures["1 click, oracle"] > figures["1 click"] > 0.6
    assert figures["5 clicks"] > figures["1 click"] and figures["box"] > 0.75
    assert scenes["calibration"]["mean absolute error"] == figures["score error"] < 0.15
    assert sum(one["answers"] for one in scenes["calibration"]["bins"]) == 4 * figures["things"]
    kept = {one["encoding"]: one["kept"] for one in scenes["encodings"]}
    assert kept["png"] == kept["rle"] == 1 > kept["polygon"] > 0.9


def test_two_models_side_by_side(compared: tuple[Path, str]) -> None:
    folder, told = compared
    found = json.loads((folder / "out" / "two.json").read_text())
    first, second = (one["figures"] for one in found["models"])
    for row in found["difference"]:
        assert row["difference"] == pytest.approx(row["second"] - row["first"], abs=1e-9)
        if row["figure"] in PROMPTS:
            assert row["first"] == pytest.approx(first[row["group"]][row["figure"]], abs=1e-4)
            assert row["second"] == pytest.approx(second[row["group"]][row["figure"]], abs=1e-4)
    (box,) = [row for row in found["difference"] if (row["group"], row["figure"]) == ("all", "box")]
    assert box["difference"] < -2 * box["spread"] < 0  # the spoilt one is worse, and not by chance
    assert told.splitlines()[3].split() == ["model", "spoilt", "difference", "+-"]
    line = f"{box['first']:18.3f}{box['second']:18.3f}{box['difference']:+12.3f}{box['spread']:8.3f}"
    assert f"  {'box':24}{line}" in told.splitlines()
    for name in ("curves.png", "worst-1.png", "worst-2.png"):
        assert np.asarray(Image.open(folder / "out" / name).convert("RGB")).std() > 10, name


def test_each_model_has_a_run_with_metrics_tables_and_pictures(compared: tuple[Path, str]) -> None:
    folder, told = compared
    found = json.loads((folder / "out" / "two.json").read_text())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/runs.db")
    client = mlflow.MlflowClient()
    runs = sorted(client.search_runs(["0"]), key=lambda run: run.info.start_time)
    assert [run.info.run_name for run in runs] == ["evaluate model", "evaluate spoilt"]
    assert all(run.info.status == "FINISHED" and run.info.run_id in told for run in runs)
    for run, report in zip(runs, found["models"], strict=True):
        assert run.data.params["data"] == "data.json" and run.data.params["images"] == "3"
        for group, figures in report["figures"].items():
            for name, value in figures.items():
                assert run.data.metrics[f"iou/{group}/{name.replace(',', '')}"] == value
        assert run.data.metrics["boundary/all/box"] == report["boundary"]["all"]["box"]
        assert run.data.metrics["calibration/expected error"] == report["calibration"]["expected error"]
        assert run.data.metrics["encoding/polygon kept"] < 1
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert names >= {"report.json", "things.json", "calibration.json", "encodings.json", "curves.png", "worst.png"}
        # Where artifacts lie is written relative to where the command ran.
        artifacts = folder / "mlruns" / "0" / run.info.run_id / "artifacts"
        assert json.loads((artifacts / "report.json").read_text()) == report
        things = json.loads((artifacts / "things.json").read_text())
        table = pd.DataFrame(things["data"], columns=things["columns"])
        assert len(table) == report["figures"]["all"]["things"]
        assert table["box"].mean() == pytest.approx(report["figures"]["all"]["box"], abs=1e-4)
    assert runs[1].data.tags["compared_with"] == runs[0].info.run_id
    assert (folder / "mlruns" / "0" / runs[1].info.run_id / "artifacts" / "difference.json").exists()


def test_average_precision_is_pycocotools(tiny: Segmenter, tmp_path: Path) -> None:
    """Boxes off by a little, some of them wrong; a crowd region, which is neither asked for nor counted wrong."""
    given = data_set(tmp_path, 4)
    rng = np.random.default_rng(0)
    images = {one["id"]: np.asarray(Image.open(tmp_path / one["file_name"])) for one in given["images"]}
    for one in given["annotations"][::3]:
        size = images[one["image_id"]].shape[:2]
        mask = one["segmentation"]
        packed = coco.frPyObjects(mask, *size) if isinstance(mask["counts"], list) else mask
        one["segmentation"] = polygons(coco.decode(packed).astype(bool))[0]
    given["annotations"][-1]["iscrowd"] = 1
    data = write(tmp_path, "data.json", given)
    boxes = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"] if rng.random() < 0.8 else 3 - one["category_id"],
            "bbox": (np.maximum(one["bbox"], 2) + rng.uniform(-2, 2, 4)).clip(0.5).tolist(),
            "score": float(rng.random()),
        }
        for one in given["annotations"]
    ]
    write(tmp_path, "boxes.json", boxes)
    done = judged(
        tmp_path, "--model", package.EMBEDDED, "--data", data, "--boxes", "boxes.json", "--output", "out.json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())

    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO(str(data))
        results = []
        for one in boxes:
            image = images[one["image_id"]]
            x, y, width, height = one["bbox"]
            sides = np.array([x, y, x + width, y + height]).clip(0, [*image.shape[1::-1]] * 2).astype(np.float32)
            (answer,) = tiny.segment(tiny.embed([image])[0], [Prompt(box=sides)], multimask_output=False)
            mask = coco.encode(np.asfortranarray(tiny.masks(answer)[0], np.uint8))
            results.append({key: one[key] for key in ("image_id", "category_id", "score")} | {"segmentation": mask})
        evaluation = COCOeval(true, true.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    theirs = [None if stat < 0 else pytest.approx(stat, abs=1e-3) for stat in evaluation.stats]
    assert list(found["average precision"].values()) == theirs
    assert 0.3 < found["average precision"]["AP"] < found["average precision"]["AP50"] < 1
    assert f"{'AP50':18}{found['average precision']['AP50']:9.3f}" in done.stdout.splitlines()


def test_everything_wrong_is_counted_named_and_survived(tmp_path: Path) -> None:
    given = data_set(tmp_path, 4)
    sound = [one for one in given["annotations"] if one["image_id"] in (0, 1)]
    counts = [sum(one["image_id"] == image for one in given["annotations"]) for image in (2, 3)]
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"broken")
    first = given["images"][0]
    full = {"image_id": 0, "category_id": 1, "segmentation": [[10, 10, 60, 10, 60, 60]], "bbox": [10, 10, 50, 50]}
    beside = [[-50, -50, -10, -50, -10, -10]]
    given["annotations"] += [
        {**full, "id": 901, "iscrowd": 1, "segmentation": {"size": [first["height"], first["width"]], "counts": "0"}},
        {**full, "id": 902, "segmentation": []},
        {**full, "id": 903, "segmentation": beside},
        {key: value for key, value in full.items() if key != "segmentation"} | {"id": 904},
        {**full, "id": 905, "segmentation": [[10, 10, 60, 60]]},
        {**full, "id": 906, "bbox": [200, 10, 900, 50]},
        {**full, "id": 907, "bbox": [float("nan"), 10, 900, 50]},
        {**full, "id": 908, "category_id": 77},
        {**full, "id": 909, "image_id": 4711},
        {"id": 910, "segmentation": []},
        {**full, "id": 911, "category_id": [1]},
        "no annotation at all",
    ]
    given["categories"].append({"id": 3, "name": "spoon"})
    given["images"] += [{"id": 0, "file_name": "again.png"}, {"id": 9}, None]
    boxes = [
        {"image_id": 0, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9},
        {"image_id": 0, "category_id": 1, "bbox": [-30, 10, 90, 50], "score": 0.8},
        {"image_id": 0, "category_id": 1, "bbox": [-30, -30, 9, 9], "score": 0.7},
        {"image_id": 0, "category_id": 1, "bbox": [10, 10, 0, 50], "score": 0.9},
        {"image_id": 0, "category_id": 1, "score": 0.9},
        {"image_id": 4711, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9},
        {"image_id": 0, "category_id": 77, "bbox": [10, 10, 50, 50], "score": 0.9},
        None,
    ]
    write(tmp_path, "data.json", given)
    write(tmp_path, "boxes.json", boxes)
    done = logged(
        tmp_path, "--model", package.EMBEDDED, "--data", "data.json", "--boxes", "boxes.json", "--output", "out.json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["figures"]["all"]["things"] == len(sound) + 4  # 906, 907, 908 and 911
    wanted = {
        "image ids used twice, the first counts": ["image 0"],
        "image entries without id and file_name, left out": ["images[5]", "images[6]"],
        "annotations of categories that the file lacks, judged": ["annotation 908", "annotation 911"],
        "annotations of images that the file lacks, left out": ["annotation 909"],
        "annotations without image_id, left out": [
            f"annotations[{len(given['annotations']) - back}]" for back in (3, 1)
        ],
        "categories without masks": ["spoon (id 3)"],
        "images missing, left out": [f"2.png ({counts[0]} annotations)"],
        "images that cannot be read, left out": [
            f"3.png ({counts[1]} annotations): got 6 bytes of no known image format"
        ],
        "crowd regions, left out": ["annotation 901"],
        "empty annotations, or outside their image, left out": ["annotation 902", "annotation 903", "annotation 904"],
        "annotations whose mask cannot be read, left out": [
            f"annotation 901: expected runs of {first['height'] * first['width']} pixels together",
            "annotation 905: expected polygons of three points or more, x and y in turn",
        ],
        "annotations with a box outside the image, judged by their masks": ["annotation 906", "annotation 907"],
        "results without a good bbox, score, image_id and category_id, left out": [
            "results[3]",
            "results[4]",
            "results[7]",
        ],
        "results of images that the file lacks, left out": ["results[5]"],
        "results of categories that the file lacks, left out": ["results[6]"],
        "results with a box over the image's edge, cut there": ["results[1]"],
        "results with a box outside the image, left out": ["results[2]"],
    }
    assert {kind: one["first"] for kind, one in report["problems"].items()} == wanted
    for kind, names in wanted.items():
        assert report["problems"][kind]["count"] == len(names)
        assert f"{len(names):6d} {kind}: {names[0]}" in done.stdout
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").search_runs(["0"])
    assert run.data.metrics["problems/crowd regions left out"] == 1
    assert run.data.metrics["average precision/AP"] == report["average precision"]["AP"]


def test_an_image_that_memory_is_too_short_for_is_left_out(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both models, so that they are judged on the same things."""
    embed, calls = tiny.family.embed, []

    def short(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(pixels)
        if len(calls) == 4:  # the second model on the second scene
            raise MemoryError
        return embed(pixels)

    monkeypatch.setattr(tiny.family, "embed", short)
    truth = Scenes(3)
    (first, second), seen = evaluate({"first": tiny, "second": tiny}, truth)
    assert seen == [0, 2] and len(calls) == 6
    assert set(first.things["image"]) == {"scene 0", "scene 2"}
    assert first.things.equals(second.things)
    assert truth.problems.noted() == {"images for which memory was short, left out": {"count": 1, "first": ["scene 1"]}}


def test_nothing_to_judge_is_told_apart_from_success(tmp_path: Path) -> None:
    given = data_set(tmp_path, 1)
    (tmp_path / "0.png").unlink()
    write(tmp_path, "data.json", given)
    done = judged(tmp_path, "--model", package.EMBEDDED, "--data", "data.json", "--output", "out.json")
    assert done.returncode == 1
    assert "error: nothing in data.json could be judged" in done.stderr
    assert "1 images missing, left out: 0.png" in done.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "missing.json"], "'missing.json' cannot be read: No such file or directory; expected a COCO"),
        (["--data", "list.json"], "'list.json': expected a COCO instances file"),
        (["--data", "good.json", "--boxes", "good.json"], "expected COCO results, a list of objects"),
        (["--data", "good.json", "--boxes", "list.json"], "got a list of 2 with none such"),
        (["--data", "good.json", "--model", "."], "no model can be loaded from '.'"),
        (["--data", "scenes", "--boxes", "list.json"], "--boxes needs a COCO file"),
        (["--count", "-1"], "--count: expected a whole number from 0 on"),
        (["--model", "a", "--model", "b", "--model", "c"], "--model: expected one or two"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "list.json", [1, 2])
    write(tmp_path, "good.json", {"images": [], "annotations": [], "categories": []})
    try:
        code = main([*([] if "--model" in arguments else ["--model", str(package.EMBEDDED)]), *arguments, "--no-log"])
    except SystemExit as error:  # argparse's own way out
        code = int(error.code or 0)
    assert code == 2
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said


def test_models_are_named_so_that_they_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("a/model", "b/model", "b/other"):
        (tmp_path / name).mkdir(parents=True)
    first, second, other = (str(tmp_path / name) for name in ("a/model", "b/model", "b/other"))
    assert names_of([first]) == ["model"]
    assert names_of([first, other]) == ["model", "other"]
    assert names_of([first, second]) == [first, second]
    assert names_of(["models:/sam@champion", other]) == ["models:/sam@champion", "other"]
    assert names_of([first, first]) == [f"{first} (1)", f"{first} (2)"]
