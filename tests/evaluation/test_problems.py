"""Malformed data sets: the evaluation counts and reports every problem, and continues."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow

from sam_endpoint.model.mlflow import package
from tests.evaluation.coco_files import evaluate_logged, write_images, write_json


def test_counts_and_reports_every_problem_of_a_data_set(tmp_path: Path) -> None:
    instances = write_images(tmp_path, 4)
    valid = [annotation for annotation in instances["annotations"] if annotation["image_id"] in (0, 1)]
    counts = [sum(annotation["image_id"] == image for annotation in instances["annotations"]) for image in (2, 3)]
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_bytes(b"broken")
    first_image = instances["images"][0]
    annotation = {"image_id": 0, "category_id": 1, "segmentation": [[10, 10, 60, 10, 60, 60]], "bbox": [10, 10, 50, 50]}
    outside = [[-50, -50, -10, -50, -10, -10]]
    instances["annotations"] += [
        {
            **annotation,
            "id": 901,
            "iscrowd": 1,
            "segmentation": {"size": [first_image["height"], first_image["width"]], "counts": "0"},
        },
        {**annotation, "id": 902, "segmentation": []},
        {**annotation, "id": 903, "segmentation": outside},
        {key: value for key, value in annotation.items() if key != "segmentation"} | {"id": 904},
        {**annotation, "id": 905, "segmentation": [[10, 10, 60, 60]]},
        {**annotation, "id": 906, "bbox": [200, 10, 900, 50]},
        {**annotation, "id": 907, "bbox": [float("nan"), 10, 900, 50]},
        {**annotation, "id": 908, "category_id": 77},
        {**annotation, "id": 909, "image_id": 4711},
        {"id": 910, "segmentation": []},
        {**annotation, "id": 911, "category_id": [1]},
        "no annotation at all",
    ]
    instances["categories"].append({"id": 3, "name": "spoon"})
    instances["images"] += [{"id": 0, "file_name": "again.png"}, {"id": 9}, None]
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
    write_json(tmp_path, "data.json", instances)
    write_json(tmp_path, "boxes.json", boxes)
    done = evaluate_logged(
        tmp_path, "--model", package.EMBEDDED, "--data", "data.json", "--boxes", "boxes.json", "--output", "out.json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["figures"]["all"]["things"] == len(valid) + 4  # 906, 907, 908 and 911
    expected = {
        "image ids used twice, only the first image used": ["image 0"],
        "image entries that lack id or file_name, left out": ["images[5]", "images[6]"],
        "annotations of categories that the file lacks, used": ["annotation 908", "annotation 911"],
        "annotations of images that the file lacks, left out": ["annotation 909"],
        "annotations without image_id, left out": [
            f"annotations[{len(instances['annotations']) - back}]" for back in (3, 1)
        ],
        "categories without masks": ["spoon (id 3)"],
        "images missing, left out": [f"2.png ({counts[0]} annotations)"],
        "images that cannot be read, left out": [
            f"3.png ({counts[1]} annotations): got 6 bytes of no known image format"
        ],
        "crowd regions, left out": ["annotation 901"],
        "annotations without pixels in the image, left out": ["annotation 902", "annotation 903", "annotation 904"],
        "annotations whose mask cannot be read, left out": [
            f"annotation 901: expected run lengths with a sum of {first_image['height'] * first_image['width']} pixels",
            "annotation 905: expected polygons of at least three points, as a list x1, y1, x2, y2, ...",
        ],
        "annotations with a box outside the image, used without the box": ["annotation 906", "annotation 907"],
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
    assert {kind: problem["first"] for kind, problem in report["problems"].items()} == expected
    for kind, names in expected.items():
        assert report["problems"][kind]["count"] == len(names)
        assert f"{len(names):6d} {kind}: {names[0]}" in done.stdout
    (run,) = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs.db").search_runs(["0"])
    assert run.data.metrics["problems/crowd regions left out"] == 1
    assert run.data.metrics["average precision/AP"] == report["average precision"]["AP"]
