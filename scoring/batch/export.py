"""Export predictions as label files: COCO, YOLO segmentation, Label Studio."""

from __future__ import annotations

import json
from pathlib import Path

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadInput
from sam_endpoint.scoring.batch import labels, show
from sam_endpoint.scoring.batch.labels import Labelled, Thing


def read(predictions: str, category: str | None = None) -> tuple[list[Labelled], dict[int, str]]:
    """Read the best mask of every prompt from predictions.

    Args:
        predictions: output of a finished job, a file or a folder of parts.
        category: column with the category of an object; None uses the category "object" for all.

    Returns:
        The images that were given by path or URL, with their objects, and the names of the categories by number.

    Raises:
        BadInput: there is no such column, or no image with a mask.
    """
    images: dict[str, Labelled] = {}
    things: dict[str, list[Thing]] = {}
    numbers: dict[str, int] = {}
    for row in show.rows(predictions):
        if row["error"] or not row.get("image"):
            continue
        if category is not None and category not in row:
            raise BadInput(category, f"one of the columns {', '.join(row)}", "a name that is none of them")
        number = numbers.setdefault(str(row[category]) if category is not None else "object", len(numbers))
        for prediction in row["predictions"]:
            best = max(prediction["mask_per_prediction"], key=lambda candidate: candidate["iou_score"])
            mask = masks.encode(show.mask(best), "rle")
            if mask["area"]:
                name, size = row["image"], (best["size"][0], best["size"][1])
                things.setdefault(name, []).append(labels.thing(number, {**mask, "iou_score": best["iou_score"]}))
                images.setdefault(name, Labelled(name, size, things[name]))
    if not images:
        raise BadInput("image", "images by path or URL", "none with a mask")
    return list(images.values()), {number: name for name, number in numbers.items()}


def write(labelled: list[Labelled], names: dict[int, str], kind: str, output: Path) -> None:
    """Write labels: a .json file for `coco`, `coco-polygons` and `label-studio`; for `yolo` a folder of .txt files."""
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
