"""Export predictions as label files: COCO, YOLO segmentation, Label Studio."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec

from sam_endpoint.model import masks
from sam_endpoint.model.coco_masks import run_lengths
from sam_endpoint.model.errors import BadData, BadInput, OutputConflict, kind
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.images.decoding import is_turned
from sam_endpoint.scoring.batch import label_names, labels, show
from sam_endpoint.scoring.batch.boxes.matching import split
from sam_endpoint.scoring.batch.label_folder import write as write_file
from sam_endpoint.scoring.batch.label_names import CLASSES, label_file
from sam_endpoint.scoring.batch.labels import Labelled, Thing

HEAD = 2**17  # bytes of an image file, in which cameras write the EXIF orientation
NO_SIZE = (0, 0)  # of an image without predictions
UNNAMED = "object"  # category of objects without one


@dataclass
class Predictions:
    """The objects in predictions.

    Attributes:
        images: the images that were given by path or URL, with their objects.
        names: names of the categories by number.
        failed_rows: number of rows with errors.
        unnamed_rows: number of rows without the path or URL of an image.
        uncategorised_rows: number of rows whose category is missing.
    """

    images: list[Labelled] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    failed_rows: int = 0
    unnamed_rows: int = 0
    uncategorised_rows: int = 0

    def describe(self) -> list[str]:
        """Return a sentence for each kind of row that is not exported as it is."""
        lines = [
            (self.failed_rows, "with errors", ("was left out", "were left out")),
            (self.unnamed_rows, "without the path or URL of an image", ("was left out", "were left out")),
            (self.uncategorised_rows, "without a category", (f"counts as '{UNNAMED}'", f"count as '{UNNAMED}'")),
        ]
        return [f"{count} row{'s' * (count > 1)} {text} {verbs[count > 1]}" for count, text, verbs in lines if count]


def read(predictions: str, category: str | None = None) -> Predictions:
    """Read the best mask of every prompt from predictions.

    Args:
        predictions: output of a finished job, a file or a folder of parts.
        category: column with the category of an object; None uses the category "object" for all.

    Raises:
        BadInput: there is no such column.
        BadData: the table is not that of a job, or has no scored image with a path or URL.
    """
    result = Predictions()
    sizes: dict[str, tuple[int, int]] = {}
    things_by_image: dict[str, list[Thing]] = {}
    numbers: dict[str, int] = {}
    for position, row in enumerate(show.rows(predictions)):
        _check_columns(row, category)
        if row["error"]:
            result.failed_rows += 1
            continue
        name = row.get("image")
        if not isinstance(name, str) or not name:
            result.unnamed_rows += 1
            continue
        label = UNNAMED if category is None else _category(row[category], category)
        if label is None:
            result.uncategorised_rows += 1
        number = numbers.setdefault(label or UNNAMED, len(numbers))
        try:
            size, things = _things(row["predictions"] or (), number)
        except Exception:  # the readers of JSON and PNG raise many types of exceptions for malformed text
            raise BadData(f"row {position}: expected predictions as `score` writes them, got others") from None
        earlier_size = sizes.get(name, NO_SIZE)
        if NO_SIZE not in (size, earlier_size) and size != earlier_size:
            raise BadData(f"row {position}: the masks of '{name}' are of another size than in a row before")
        sizes[name] = max(size, earlier_size)
        things_by_image.setdefault(name, []).extend(things)
    result.images = [Labelled(name, sizes[name], things) for name, things in things_by_image.items()]
    result.names = {number: name for name, number in numbers.items()}
    if not result.images:
        raise BadData("; ".join(["expected scored images with a path or URL, got none", *result.describe()]))
    return result


def _check_columns(row: Mapping[str, Any], category: str | None) -> None:
    for column in ("predictions", "error"):
        if column not in row:
            raise BadData(f"expected the output of `score`, got a table without a column '{column}'")
    if category is not None and category not in row:
        raise BadInput(category, f"one of the columns {', '.join(row)}", "a name that is none of them")


def _category(value: object, column: str) -> str | None:
    """Return the name of a category, or None if the cell is empty. Raises BadInput for a list, struct or bytes."""
    if value is None or value != value:
        return None
    if isinstance(value, (list, dict, bytes)):
        raise BadInput(column, "the name of a category, as text or a number", kind(value))
    return str(value).strip() or None


def _things(predictions: Sequence[Mapping[str, Any]], category: int) -> tuple[tuple[int, int], list[Thing]]:
    """Return the size of an image, (0, 0) if there are no predictions, and the objects with a mask."""
    size, things = NO_SIZE, []
    for prediction in predictions:
        best = max(prediction["mask_per_prediction"], key=lambda candidate: candidate["iou_score"])
        height, width = best["size"]
        size = (int(height), int(width))
        rle = _run_lengths(best["encoded_binary_mask"], size)
        if rle is not None:
            mask = masks.encode_rle(rle, "rle")
            if mask["area"]:
                things.append(labels.thing(category, {**mask, "iou_score": best["iou_score"]}))
    return size, things


def _run_lengths(text: str, size: tuple[int, int]) -> masks.RunLengths | None:
    """Return the run lengths of a mask in any encoding, None if it is empty. Raises ValueError for malformed text."""
    if text.startswith("iVBORw0KGgo"):
        mask = masks.decode(text, "png", size)
        if mask.shape != size:
            raise ValueError
        return masks.to_rle(mask)
    # Run lengths contain no comma and are never "[]", which would be an incomplete number.
    is_polygon = "," in text or text == "[]"
    return run_lengths(json.loads(text) if is_polygon else {"size": list(size), "counts": text}, size)


def with_sizes(images: Sequence[Labelled], predictions: str) -> list[Labelled]:
    """Return the images with their sizes; an image without predictions is read if possible."""
    reader, upright = ImageReader(ImageLimits(local_paths=True)), bool(show.is_upright(predictions))
    sized = []
    for image in images:
        if image.size == NO_SIZE:
            try:
                height, width = reader.open(reader.reference(image.name, upright)).pixels().shape[:2]
                image = replace(image, size=(height, width))
            except (BadInput, OSError):
                pass
        sized.append(image)
    return sized


def is_unfinished(predictions: str) -> bool:
    """Return whether predictions are the folder of a job that has not ended. Raises OSError."""
    fs, path = fsspec.core.url_to_fs(predictions)
    return bool(fs.exists(f"{path}/job.json") and not fs.exists(f"{path}/_SUCCESS"))


def turned_names(images: Sequence[Labelled], predictions: str) -> list[str]:
    """Return the names of images on this machine that tools show turned by their EXIF orientation, unlike the masks."""
    names = []
    for image in images if not show.is_upright(predictions) else ():
        try:
            with open(image.name, "rb") as stream:
                is_turned_image = is_turned(stream.read(HEAD))
        except (OSError, ValueError):  # a URL, or a file that is gone
            continue
        if is_turned_image:
            names.append(image.name)
    return names


def write(labelled: Sequence[Labelled], names: Mapping[int, str], kind: str, output: Path) -> None:
    """Write labels: a .json file for `coco`, `coco-polygons` and `label-studio`; for `yolo` a folder of .txt files.

    YOLO files mirror the folders of the images, from the deepest folder that holds them all.

    Raises:
        BadData: two images would have the same .txt file, or a category's name does not fit on a line.
        OutputConflict: the output is a folder instead of a file or the reverse, or has .txt files of other images.
    """
    if kind == "yolo":
        _write_yolo(labelled, names, output)
        return
    if output.is_dir():
        raise OutputConflict(f"'{output}' is a folder; the output of {kind} is a .json file")
    if kind == "label-studio":
        write_file(output, json.dumps(labels.label_studio(labelled, names)).encode())
    else:
        write_file(output, json.dumps(labels.coco(labelled, names, polygons=kind == "coco-polygons")).encode())


def _write_yolo(labelled: Sequence[Labelled], names: Mapping[int, str], folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputConflict(f"'{folder}' is a file; the output of yolo is a folder")
    relative = relative_names([image.name for image in labelled])
    label_names.check(relative, str(folder))
    classes_text = labels.classes_text(names)
    files = {label_file(folder, relative[image.name], ".txt"): image for image in labelled}
    classes = folder / f"{CLASSES}.txt"
    stale = next((file for file in sorted(folder.rglob("*.txt")) if file not in files and file != classes), None)
    if stale is not None:
        raise OutputConflict(f"'{stale}' is the label file of none of these images; choose another --output")
    for file, image in files.items():
        write_file(file, labels.yolo(image, names).encode())
    write_file(classes, classes_text.encode())


def relative_names(names: Sequence[str]) -> dict[str, str]:
    """Return the paths of images relative to the deepest folder that holds them all, by path or URL.

    Raises:
        BadData: a name has no file name.
    """
    parts = {name: split(name) for name in names}
    for name, pieces in parts.items():
        if not pieces or "\0" in name:
            raise BadData(f"'{name}' is not the path or URL of a file")
    common = 0
    for level in zip(*(pieces[:-1] for pieces in parts.values()), strict=False):
        if len(set(level)) > 1:
            break
        common += 1
    return {name: "/".join(pieces[common:]) for name, pieces in parts.items()}
