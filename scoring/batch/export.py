"""Convert the output of a batch job to label files: COCO, YOLO segmentation, Label Studio."""

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
from sam_endpoint.scoring.batch.labels import LabelledImage, LabelledObject

HEAD = 2**17  # first bytes of an image file; cameras write the EXIF orientation there
NO_SIZE = (0, 0)  # the size of an image without predictions
UNNAMED = "object"  # the category of objects without a category


@dataclass
class Predictions:
    """The objects in the output of a batch job.

    Attributes:
        images: the images that the job read from a path or URL, with their objects.
        names: names of the categories by number.
        failed_rows: number of rows with an error. They are left out.
        unnamed_rows: number of rows without the path or URL of an image. They are left out.
        uncategorised_rows: number of rows without a category. Their objects get the category UNNAMED.
    """

    images: list[LabelledImage] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    failed_rows: int = 0
    unnamed_rows: int = 0
    uncategorised_rows: int = 0

    def describe(self) -> list[str]:
        """Return a sentence for each kind of row that was left out or got the default category."""
        lines = [
            (self.failed_rows, "with errors", ("was left out", "were left out")),
            (self.unnamed_rows, "without the path or URL of an image", ("was left out", "were left out")),
            (self.uncategorised_rows, "without a category", (f"counts as '{UNNAMED}'", f"count as '{UNNAMED}'")),
        ]
        return [f"{count} row{'s' * (count > 1)} {text} {verbs[count > 1]}" for count, text, verbs in lines if count]


def read(predictions: str, category: str | None = None) -> Predictions:
    """Read the mask with the highest predicted IoU of every prompt.

    Args:
        predictions: output of a job: a Parquet file or a folder of parts.
        category: name of the column with the categories; None gives every object the category "object".

    Returns:
        The images with their objects.

    Raises:
        BadInput: the column does not exist, or a category is not text or a number.
        BadData: the table is not the output of a job, or has no scored image with a path or URL.
    """
    result = Predictions()
    sizes: dict[str, tuple[int, int]] = {}
    objects_by_image: dict[str, list[LabelledObject]] = {}
    numbers: dict[str, int] = {}
    for position, row in enumerate(show.read_rows(predictions)):
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
            size, objects = _read_objects(row["predictions"] or (), number)
        except Exception:  # the JSON and PNG readers raise many types of exceptions for malformed text
            raise BadData(
                f"row {position}: expected predictions from `score`, got a value that cannot be read"
            ) from None
        earlier_size = sizes.get(name, NO_SIZE)
        if NO_SIZE not in (size, earlier_size) and size != earlier_size:
            raise BadData(f"row {position}: the masks of '{name}' have another size than in an earlier row")
        sizes[name] = max(size, earlier_size)
        objects_by_image.setdefault(name, []).extend(objects)
    result.images = [LabelledImage(name, sizes[name], objects) for name, objects in objects_by_image.items()]
    result.names = {number: name for name, number in numbers.items()}
    if not result.images:
        raise BadData("; ".join(["expected scored images with a path or URL, got none", *result.describe()]))
    return result


def _check_columns(row: Mapping[str, Any], category: str | None) -> None:
    for column in ("predictions", "error"):
        if column not in row:
            raise BadData(f"expected the output of `score`, got a table without a column '{column}'")
    if category is not None and category not in row:
        raise BadInput(category, f"one of the columns {', '.join(row)}", "another name")


def _category(value: object, column: str) -> str | None:
    """Return a category's name, or None if the cell is empty. Raises BadInput for a list, struct or bytes."""
    if value is None or value != value:
        return None
    if isinstance(value, (list, dict, bytes)):
        raise BadInput(column, "the name of a category, as text or a number", kind(value))
    return str(value).strip() or None


def _read_objects(
    predictions: Sequence[Mapping[str, Any]], category: int
) -> tuple[tuple[int, int], list[LabelledObject]]:
    """Return the size of an image and its objects. Leave out objects with an empty mask.

    Without predictions, the size is NO_SIZE.
    """
    size, objects = NO_SIZE, []
    for prediction in predictions:
        best = max(prediction["mask_per_prediction"], key=lambda candidate: candidate["iou_score"])
        height, width = best["size"]
        size = (int(height), int(width))
        rle = _run_lengths(best["encoded_binary_mask"], size)
        if rle is not None:
            mask = masks.encode_rle(rle, "rle")
            if mask["area"]:
                objects.append(LabelledObject.from_prediction(category, {**mask, "iou_score": best["iou_score"]}))
    return size, objects


def _run_lengths(text: str, size: tuple[int, int]) -> masks.RunLengths | None:
    """Convert a mask from any encoding to run lengths.

    Args:
        text: the encoded mask.
        size: (height, width) of the image in pixels.

    Returns:
        The run lengths, or None if a polygon text has no polygon.

    Raises:
        ValueError: the text is malformed.
    """
    if text.startswith("iVBORw0KGgo"):
        mask = masks.decode(text, "png", size)
        if mask.shape != size:
            raise ValueError
        return masks.to_rle(mask)
    # Run lengths contain no comma. The text "[]" is a list without polygons. It is not valid as run lengths: a bit of
    # each character says whether the number continues, and the number in "[]" does not end.
    is_polygon = "," in text or text == "[]"
    return run_lengths(json.loads(text) if is_polygon else {"size": list(size), "counts": text}, size)


def add_sizes(images: Sequence[LabelledImage], predictions: str) -> list[LabelledImage]:
    """Add the sizes of images without predictions, by reading the image files.

    Args:
        images: images with their objects.
        predictions: output of the job.

    Returns:
        The images. An image keeps the size NO_SIZE if its file cannot be read.
    """
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
    """Return whether an output is the folder of an unfinished job. Raises OSError."""
    fs, path = fsspec.core.url_to_fs(predictions)
    return bool(fs.exists(f"{path}/job.json") and not fs.exists(f"{path}/_SUCCESS"))


def find_turned_images(images: Sequence[LabelledImage], predictions: str) -> list[str]:
    """Find images with an EXIF orientation that the job ignored.

    Labelling tools rotate these images by their EXIF orientation, so the masks do not fit the rotated images.

    Args:
        images: images with their objects. Only images on this machine are checked.
        predictions: output of the job.

    Returns:
        Names of the images.
    """
    names = []
    for image in images if not show.is_upright(predictions) else ():
        try:
            with open(image.name, "rb") as stream:
                is_turned_image = is_turned(stream.read(HEAD))
        except (OSError, ValueError):  # a URL, or a deleted file
            continue
        if is_turned_image:
            names.append(image.name)
    return names


def write(labelled: Sequence[LabelledImage], names: Mapping[int, str], kind: str, output: Path) -> None:
    """Write label files.

    The YOLO folder has the same subfolders as the images, starting at the deepest folder that contains all images.

    Args:
        labelled: the images and their objects.
        names: names of the categories by number.
        kind: `coco`, `coco-polygons` or `label-studio` for a .json file; `yolo` for a folder of .txt files.
        output: path of the file or folder.

    Raises:
        BadData: two images have the same .txt file, or a category's name contains a line break.
        OutputConflict: `output` exists as a folder, but `kind` needs a file; or it exists as a file, but `kind` needs a
            folder; or the folder has .txt files of other images.
    """
    if kind == "yolo":
        _write_yolo(labelled, names, output)
        return
    if output.is_dir():
        raise OutputConflict(f"'{output}' is a folder; the output of {kind} is a .json file")
    if kind == "label-studio":
        write_file(output, json.dumps(labels.to_label_studio(labelled, names)).encode())
    else:
        write_file(output, json.dumps(labels.to_coco(labelled, names, polygons=kind == "coco-polygons")).encode())


def _write_yolo(labelled: Sequence[LabelledImage], names: Mapping[int, str], folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputConflict(f"'{folder}' is a file; the output of yolo is a folder")
    relative = relative_names([image.name for image in labelled])
    label_names.check(relative, str(folder))
    classes_text = labels.format_classes(names)
    files = {label_file(folder, relative[image.name], ".txt"): image for image in labelled}
    classes = folder / f"{CLASSES}.txt"
    stale = next((file for file in sorted(folder.rglob("*.txt")) if file not in files and file != classes), None)
    if stale is not None:
        raise OutputConflict(f"'{stale}' is not a label file of these images; choose another --output")
    for file, image in files.items():
        write_file(file, labels.to_yolo(image, names).encode())
    write_file(classes, classes_text.encode())


def relative_names(names: Sequence[str]) -> dict[str, str]:
    """Map paths or URLs of images to paths relative to the deepest folder that contains all images.

    Raises:
        BadData: a path or URL has no file name.

    Example:
        >>> relative_names(["/data/x/a.png", "/data/y/b.png"])
        {'/data/x/a.png': 'x/a.png', '/data/y/b.png': 'y/b.png'}
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
