"""Tests of the data of a fine-tuning: every format gives the same masks, and every problem is counted."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.geometry import iou
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData, BadParameter
from sam_endpoint.scoring.brush import encode_brush
from sam_endpoint.training.finetune import data, sources
from sam_endpoint.training.finetune.label_studio import decode_brush
from sam_endpoint.training.finetune.options import FinetuneOptions, Plan
from sam_endpoint.training.memory.options import MemoryPlan
from sam_endpoint.training.options import Plan as TrainingPlan
from tests import pictures

SIZE = (60, 80)
IMAGES = 4


def rectangle(number: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[10 : 30 + number, 20 : 50 + number] = True
    return mask


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of images. Image n has one mask, `rectangle(n)`."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def coco(folder: Path) -> dict[str, Any]:
    """Return the images as COCO. Even images have polygons of category `even`, odd images run lengths of `odd`."""
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": 0, "name": "even"}, {"id": 1, "name": "odd"}]
    for number in range(IMAGES):
        rle = masks.to_rle(rectangle(number))
        runs = {"size": list(SIZE), "counts": rle["counts"].decode("ascii")}
        outline = masks.to_polygons(rectangle(number))
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        annotation = {"id": number, "image_id": number, "category_id": number % 2}
        content["annotations"].append({**annotation, "segmentation": runs if number % 2 else outline})
    return content


def write(folder: Path, content: object, name: str = "coco.json") -> str:
    file = folder / name
    file.write_text(json.dumps(content))
    return str(file)


def options(tmp_path: Path, source: str, **more: Any) -> FinetuneOptions:
    return FinetuneOptions("checkpoints/sam-tiny", source, output=tmp_path / "out", holdout=0.5, **more)


def read(split: data.DataSplit) -> dict[str, list[np.ndarray]]:
    """Return the masks of each image, by the image's name."""
    found = {}
    for dataset in (split.open_train(), split.open_held_out()):
        for image in dataset:
            found[Path(image.name).name] = [true.mask for true in image.objects]
        assert not dataset.problems.counts
    return found


def as_yolo(tmp_path: Path, images: Path) -> str:
    folder = tmp_path / "yolo"
    (folder / "labels").mkdir(parents=True)
    shutil.copytree(images, folder / "images")
    for number in range(IMAGES):
        outline = np.reshape(masks.to_polygons(rectangle(number))[0], (-1, 2)) / (SIZE[1], SIZE[0])
        words = " ".join(f"{value:.6f}" for value in outline.ravel())
        (folder / "labels" / f"{number}.txt").write_text(f"{number % 2} {words}\n")
    (folder / "classes.txt").write_text("even\nodd\n")
    return str(folder)


def as_label_studio(tmp_path: Path, images: Path) -> str:
    tasks = []
    for number in range(IMAGES):
        region: dict[str, Any] = {"original_width": SIZE[1], "original_height": SIZE[0]}
        if number % 2:
            region["value"] = {"rle": list(encode_brush(rectangle(number))), "brushlabels": ["odd"]}
        else:
            outline = np.reshape(masks.to_polygons(rectangle(number))[0], (-1, 2)) / (SIZE[1], SIZE[0]) * 100
            region["value"] = {"points": outline.tolist(), "polygonlabels": ["even"]}
        source = [f"/data/upload/1/0a1b2c3d-{number}.png", f"/data/local-files/?d=images/{number}.png"][number % 2]
        tasks.append({"id": number, "data": {"image": source}, "annotations": [{"result": [region]}]})
    return write(images, tasks, "tasks.json")


def rows(images: Path) -> list[dict[str, Any]]:
    """Return the rows of a table of predictions."""
    return [
        {
            "image": str(images / f"{number}.png"),
            "category": ["even", "odd"][number % 2],
            "predictions": [
                {
                    "mask_per_prediction": [
                        {**masks.encode(rectangle(number), masks.ENCODINGS[number % 3]), "iou_score": 0.9}
                    ]
                }
            ],
            "error": None,
        }
        for number in range(IMAGES)
    ]


def as_parquet(tmp_path: Path, images: Path) -> str:
    pq.write_table(pa.Table.from_pylist(rows(images)), tmp_path / "predictions.parquet")
    return str(tmp_path / "predictions.parquet")


def as_csv(tmp_path: Path, images: Path) -> str:
    table = [{**row, "predictions": json.dumps(row["predictions"])} for row in rows(images)]
    pd.DataFrame(table).to_csv(tmp_path / "predictions.csv", index=False)
    return str(tmp_path / "predictions.csv")


@pytest.mark.parametrize("write_as", [None, as_yolo, as_label_studio, as_parquet, as_csv])
def test_every_format_gives_the_same_masks(write_as: Any, tmp_path: Path, images: Path) -> None:
    source = write_as(tmp_path, images) if write_as else write(images, coco(images))
    column = "category" if write_as in (as_parquet, as_csv) else ""
    split = data.prepare(options(tmp_path, source, category_column=column))
    assert not split.problems.counts
    assert set(split.categories) == {"even", "odd"}
    found = read(split)
    assert sorted(found) == [f"{number}.png" for number in range(IMAGES)]
    for number in range(IMAGES):
        (mask,) = found[f"{number}.png"]
        assert iou(mask, rectangle(number)) > 0.95
    assert split.open_held_out().count == 2


def test_the_split_depends_on_the_seed_and_keeps_equal_images_together(tmp_path: Path, images: Path) -> None:
    content = coco(images)
    for number in range(IMAGES):
        shutil.copy(images / f"{number}.png", images / f"copy-{number}.png")
        content["images"].append({"id": f"copy {number}", "file_name": f"copy-{number}.png"})
        content["annotations"].append(
            {**content["annotations"][number], "id": f"copy {number}", "image_id": f"copy {number}"}
        )
    source = write(images, content)
    held = []
    for seed in (1, 1, 2, 3):
        split = data.prepare(options(tmp_path, source, plan=Plan(seed=seed)))
        names = {Path(entry["file_name"]).name for entry in split.open_held_out().images.values()}
        assert {name.replace("copy-", "") for name in names} == {name for name in names if "copy" not in name}
        held.append(names)
    assert held[0] == held[1] and len({frozenset(names) for names in held}) > 1


def test_images_in_both_parts_are_refused(tmp_path: Path, images: Path) -> None:
    content = coco(images)
    shutil.copy(images / "1.png", images / "renamed.png")
    other = {**content, "images": [{"id": 1, "file_name": "renamed.png"}], "annotations": content["annotations"][1:2]}
    source, val = write(images, content), write(images, other, "val.json")
    with pytest.raises(BadData, match=r"1 images are in both --data and --val \(1.png = renamed.png\)"):
        data.prepare(options(tmp_path, source, val=val))


def test_a_category_filter_keeps_matching_masks_and_rejects_data_without_any(tmp_path: Path, images: Path) -> None:
    source = write(images, coco(images))
    split = data.prepare(options(tmp_path, source, categories=("odd",)))
    assert sorted(read(split)) == ["1.png", "3.png"]
    assert split.problems.counts == {"images without masks, left out": 2}
    with pytest.raises(BadData, match="no mask has the category oval; the data has even, odd"):
        data.prepare(options(tmp_path, source, categories=("oval",)))


def test_problems_are_counted(tmp_path: Path, images: Path) -> None:
    content = coco(images)
    content["images"].append({"id": "bare", "file_name": "bare.png"})
    content["images"].append({"id": "gone", "file_name": "gone.png"})
    content["annotations"].append(
        {"id": "lost", "image_id": 77, "category_id": 0, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    )
    content["annotations"].append(
        {"id": "of gone", "image_id": "gone", "category_id": 0, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    )
    content["annotations"].append({"id": "empty", "image_id": 0, "category_id": 0, "segmentation": []})
    split = data.prepare(options(tmp_path, write(images, content)))
    assert split.problems.counts == {"images without masks, left out": 1}
    train, held_out = split.open_train(), split.open_held_out()
    assert len(list(train)) + len(list(held_out)) == IMAGES
    counts = train.problems.counts + held_out.problems.counts
    assert counts["images missing, left out"] == 1
    assert counts["annotations of images that the file lacks, left out"] == 1
    assert counts["annotations without pixels in the image, left out"] == 1


def test_labels_of_other_kinds_are_counted(tmp_path: Path, images: Path) -> None:
    folder = Path(as_yolo(tmp_path, images))
    (folder / "labels" / "0.txt").write_text("0 0.5 0.5 0.2 0.2\nnonsense\n")
    (folder / "labels" / "1.txt").unlink()
    counts = data.prepare(options(tmp_path, str(folder))).problems.counts
    assert counts["labels without an outline (boxes are not masks), left out"] == 1
    assert counts["lines that are no YOLO label, left out"] == 1
    assert counts["images without a label file, left out"] == 1
    region = {"original_width": 80, "original_height": 60, "value": {"x": 1, "y": 2, "width": 3, "height": 4}}
    tasks = json.loads(Path(as_label_studio(tmp_path, images)).read_text())
    tasks[0]["annotations"][0]["result"] += [region, {**region, "value": {"rle": [1, 2, 3]}}]
    counts = data.prepare(options(tmp_path, write(images, tasks, "more.json"))).problems.counts
    assert counts["regions that are no mask (boxes, key points, choices), left out"] == 1
    assert counts["regions that cannot be read, left out"] == 1


def test_masks_of_turned_photographs_fit_the_pixels(tmp_path: Path) -> None:
    """Label Studio's masks are those of the upright image. A job's masks are those of the stored image by default."""
    upright = np.zeros((40, 40, 3), np.uint8)
    upright[5:15, 5:20] = 255
    pixels = {}
    for name in ("labelled", "stored", "upright"):
        (tmp_path / f"{name}.png").write_bytes(pictures.turned(Image.fromarray(upright), 3))
        pixels[name] = upright[..., 0] > 0
    outline = [[12.5, 12.5], [50, 12.5], [50, 37.5], [12.5, 37.5]]
    region = {"original_width": 40, "original_height": 40, "value": {"points": outline}}
    tasks = [{"id": 1, "data": {"image": "labelled.png"}, "annotations": [{"result": [region]}]}]
    sources_of = {"labelled": write(tmp_path, tasks, "tasks.json")}
    for name, mask in (("stored", pixels["stored"][::-1, ::-1]), ("upright", pixels["upright"])):
        answer = {**masks.encode(mask, "rle"), "iou_score": 0.9}
        row = {
            "image": str(tmp_path / f"{name}.png"),
            "predictions": [{"mask_per_prediction": [answer]}],
            "error": None,
        }
        job = json.dumps({"job": {"params": {"orientation": name}}})
        table = pa.Table.from_pylist([row]).replace_schema_metadata({"scoring.batch": job})
        sources_of[name] = str(tmp_path / f"{name}.parquet")
        pq.write_table(table, sources_of[name])
    for name, source in sources_of.items():
        content = sources.read(source, "auto", None, "", tmp_path).to_coco()
        (image,) = CocoDataset(Path(write(tmp_path, content, f"{name}.json")))
        assert np.array_equal(image.objects[0].mask, image.pixels[..., 0] > 0), name


def test_a_region_of_label_studio_with_several_results_is_one_object(tmp_path: Path, images: Path) -> None:
    outline = {"points": [[10, 10], [50, 10], [50, 60]]}
    common = {"id": "r1", "original_width": SIZE[1], "original_height": SIZE[0]}
    results = [{**common, "value": outline}, {**common, "value": {**outline, "labels": ["cup"]}}]
    results += [{**common, "value": {**outline, "choices": ["good"]}}, {"id": "r2", "value": {"choices": ["sharp"]}}]
    tasks = [{"id": 1, "data": {"image": "0.png"}, "annotations": [{"result": results}]}]
    labelled = sources.read(write(images, tasks, "tasks.json"), "auto", None, "", tmp_path)
    assert [labelled.categories[entry["category_id"]] for entry in labelled.annotations] == ["cup"]
    assert labelled.problems.counts == {"regions that are no mask (boxes, key points, choices), left out": 1}


@pytest.mark.parametrize("image", ["data:image/png;base64," + "A" * 5000, "http://[x/a.png", "a\0.png", "/", ""])
def test_a_task_of_label_studio_without_an_image_is_counted(image: str, tmp_path: Path, images: Path) -> None:
    tasks = json.loads(Path(as_label_studio(tmp_path, images)).read_text())
    tasks += [{**tasks[0], "data": {"image": image}}, {**tasks[1], "annotations": 5}]
    labelled = sources.read(write(images, tasks, "more.json"), "auto", None, "", tmp_path)
    assert labelled.problems.counts == {"tasks without the path or URL of an image, left out": 1}
    assert len(labelled.annotations) == IMAGES


def test_empty_cells_of_a_csv_table_count_as_in_parquet(tmp_path: Path, images: Path) -> None:
    table = pd.read_csv(as_csv(tmp_path, images))
    table.loc[0, "category"] = None
    table.loc[1, "image"] = None
    table.to_csv(tmp_path / "gaps.csv", index=False)
    labelled = sources.read(str(tmp_path / "gaps.csv"), "auto", None, "category", tmp_path / "scratch")
    assert sorted(labelled.categories.values()) == ["even", "object", "odd"] and len(labelled.annotations) == IMAGES - 1
    assert labelled.problems.names["rows of the table"] == [
        "1 row without the path or URL of an image was left out",
        "1 row without a category counts as 'object'",
    ]


@pytest.mark.parametrize("seed", range(1, 5))
def test_images_of_one_id_stay_together(seed: int, tmp_path: Path, images: Path) -> None:
    content = coco(images)
    content["images"][1]["id"] = 0  # the masks of image 0 belong to 0.png
    split = data.prepare(options(tmp_path, write(images, content), plan=Plan(seed=seed)))
    parts = [split.open_train(), split.open_held_out()]
    names = {Path(image.name).name for part in parts for image in part}
    assert names == {"0.png", "2.png", "3.png"}
    assert sum(part.problems.counts["image ids used twice, only the first image used"] for part in parts) == 1


def test_problems_add_up() -> None:
    problems, more = Problems(), Problems()
    for number in range(30):
        more.add("kind", str(number))
    problems.add("kind", "first")
    data.add_problems(problems, more)
    assert problems.counts == {"kind": 31} and problems.names["kind"][:2] == ["first", "0"]


@pytest.mark.parametrize("content", [{}, [1], "text", {"images": [], "annotations": [], "categories": []}])
def test_data_without_masks_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(BadData):
        data.prepare(options(tmp_path, write(tmp_path, content)))


def test_brush_masks_decode_to_what_was_encoded() -> None:
    mask = np.random.default_rng(1).random((37, 41)) > 0.7
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), (37, 41)), mask)
    for wrong in (b"", encode_brush(mask)[:-9], encode_brush(mask[:-1])):
        with pytest.raises(ValueError):
            decode_brush(wrong, (37, 41))


def test_options_that_contradict_each_other_are_refused() -> None:
    good = FinetuneOptions("model", "data.json")
    for wrong in (
        {"alias": "challenger"},
        {"promote": "champion"},
        {"register": "sam", "log": False},
        {"holdout": 1.0},
        {"epochs": 3, "minutes": 5},
        {"plan": Plan(images=0)},
        {"plan": Plan(rate=0)},
        {"plan": Plan(stop_share=1)},
        {"margin": math.nan},
        {"tolerance": math.nan},
        {"epochs": math.inf},
    ):
        with pytest.raises(BadParameter):
            replace(good, **wrong)
    for plan in (Plan, TrainingPlan, MemoryPlan):
        with pytest.raises(BadParameter, match="--rate: expected a finite number, got nan"):
            plan(rate=math.nan)
