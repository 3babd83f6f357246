"""A predictions file as label files: COCO, YOLO segmentation, Label Studio.

python -m scoring.batch export --predictions out/predictions.parquet --format coco --output out/coco.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pyarrow as pa

from model import masks
from model.errors import BadInput
from scoring.batch import labels, show
from scoring.batch.labels import Labelled, Thing

FORMATS = ("coco", "coco-polygons", "yolo", "label-studio")


def read(predictions: str, category: str | None = None) -> tuple[list[Labelled], dict[int, str]]:
    """The images that came by path or URL with the best mask of every prompt, and the categories' names.

    category: the column that tells an object's category; None calls each an object. Raises BadInput.
    """
    found: dict[str, Labelled] = {}
    things: dict[str, list[Thing]] = {}
    numbers: dict[str, int] = {}
    for row in show.rows(predictions):
        if row["error"] or not row.get("image"):
            continue
        if category is not None and category not in row:
            raise BadInput(category, f"one of the columns {', '.join(row)}", "a name that is none of them")
        number = numbers.setdefault(str(row[category]) if category is not None else "object", len(numbers))
        for prediction in row["predictions"]:
            best = max(prediction["mask_per_prediction"], key=lambda one: one["iou_score"])
            mask = masks.encode(show.mask(best), "rle")
            if mask["area"]:
                name, size = row["image"], (best["size"][0], best["size"][1])
                things.setdefault(name, []).append(labels.thing(number, {**mask, "iou_score": best["iou_score"]}))
                found.setdefault(name, Labelled(name, size, things[name]))
    if not found:
        raise BadInput("image", "images by path or URL", "none with a mask")
    return list(found.values()), {number: name for name, number in numbers.items()}


def write(labelled: list[Labelled], names: dict[int, str], kind: str, output: Path) -> None:
    """Writes one of FORMATS: a .json file, or for YOLO a folder of .txt files with their `classes.txt`."""
    if kind == "yolo":
        output.mkdir(parents=True, exist_ok=True)
        for image in labelled:
            (output / Path(image.name).name).with_suffix(".txt").write_text(labels.yolo(image))
        (output / "classes.txt").write_text("".join(f"{names[number]}\n" for number in sorted(names)))
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if kind == "label-studio":
        output.write_text(json.dumps(labels.label_studio(labelled, names)))
    else:
        output.write_text(json.dumps(labels.coco(labelled, names, polygons=kind == "coco-polygons")))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scoring.batch export", description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", required=True, help="output of a batch job: a file or a folder of parts")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, required=True, help="a .json file; for yolo a folder")
    parser.add_argument("--category", metavar="COLUMN", help="column with the objects' categories")
    chosen = parser.parse_args(arguments)
    try:
        labelled, names = read(chosen.predictions, chosen.category)
        write(labelled, names, chosen.format, chosen.output)
    except (BadInput, OSError, KeyError, pa.ArrowException) as error:
        print(f"error: {chosen.predictions} cannot be exported: {error}", file=sys.stderr)
        return 2
    print(f"images       {len(labelled)}")
    print(f"objects      {sum(len(one.things) for one in labelled)} of {len(names)} categories")
    print(f"written      {chosen.output}")
    return 0
