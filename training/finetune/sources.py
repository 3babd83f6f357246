"""Read labelled images in any supported format, and convert them to the content of a COCO instances file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from sam_endpoint.evaluation.coco import ORIENTATION, STORED, read_json
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import export, show
from sam_endpoint.scoring.batch.label_names import stem
from sam_endpoint.scoring.batch.sources import image_files

OBJECT = "object"  # category of objects for which the data has no category
TABLES = (".parquet", ".csv")


@dataclass
class LabelledImages:
    """Labelled images of one source.

    Attributes:
        images: COCO's `images`; `file_name` is an absolute path.
        annotations: COCO's `annotations`.
        categories: names of the categories by id.
        problems: the images and masks that were left out.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[object, str] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)

    def add_image(self, file: Path, size: tuple[int, int] | None = None, stored: bool = False) -> int:
        """Add an image and return its id.

        Args:
            file: The image file.
            size: (height, width) in pixels; None if not known.
            stored: Whether the masks are those of the stored image, without its EXIF orientation.
        """
        entry: dict[str, Any] = {"id": len(self.images) + 1, "file_name": os.path.abspath(file)}
        if size:
            entry |= {"height": size[0], "width": size[1]}
        if stored:
            entry[ORIENTATION] = STORED
        self.images.append(entry)
        return len(self.images)

    def add_annotation(self, image_id: int, category: str, segmentation: Any, name: str) -> None:
        """Add an object with a mask, as polygons or run lengths.

        Args:
            image_id: The id of the object's image.
            category: The name of the object's category. A new category gets an id.
            segmentation: As in COCO.
            name: The object's id, for reports.
        """
        category_id = next((number for number, known in self.categories.items() if known == category), None)
        if category_id is None:
            category_id = len(self.categories) + 1
            self.categories[category_id] = category
        self.annotations.append(
            {"id": name, "image_id": image_id, "category_id": category_id, "segmentation": segmentation}
        )

    def to_coco(self) -> dict[str, Any]:
        """Return the content of a COCO instances file."""
        categories = [{"id": number, "name": name} for number, name in self.categories.items()]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}


def read(data: str, format: str, images: Path | None, category_column: str, scratch: Path) -> LabelledImages:
    """Read labelled images.

    Args:
        data: A file or a folder.
        format: One of `options.FORMATS`. For `auto`, the function detects the format.
        images: The folder of the images; None for the default of the format.
        category_column: The column with the category, if the data is a table of predictions; empty for none.
        scratch: A folder for the Parquet copy of a CSV table.

    Raises:
        BadData: The data cannot be read, or its format is not known.
    """
    from sam_endpoint.training.finetune.label_studio import read_label_studio

    path = Path(data)
    readers: dict[str, Callable[[], LabelledImages]] = {
        "coco": lambda: _read_coco(path, images),
        "yolo": lambda: _read_yolo(path, images),
        "label-studio": lambda: read_label_studio(path, images),
        "predictions": lambda: _read_predictions(path, images, category_column, scratch),
    }
    if not path.exists():
        raise BadData(f"--data '{data}' does not exist")
    return readers[_detect(path) if format == "auto" else format]()


def _detect(path: Path) -> str:
    """Return the format of a file or folder. Raises BadData if the format is not known."""
    if path.is_dir():
        if (path / "job.json").exists() or any(path.glob("*.parquet")):
            return "predictions"
        return "yolo"
    if path.suffix.lower() in TABLES:
        return "predictions"
    if path.suffix.lower() in (".yaml", ".yml"):
        return "yolo"
    if path.suffix.lower() == ".json":
        return "label-studio" if isinstance(read_json(path, "expected labels"), list) else "coco"
    known = "a COCO or Label Studio .json, a YOLO folder, or a predictions table (.parquet, .csv or a folder)"
    raise BadData(f"'{path}': expected {known}; name the format with --format")


def _read_coco(file: Path, images: Path | None) -> LabelledImages:
    content = read_json(file, "expected a COCO instances file")
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise BadData(f"'{file}': expected a COCO instances file, an object with the lists {', '.join(keys)}")
    folder = os.path.abspath(images or file.parent)
    labelled = LabelledImages(annotations=content["annotations"])
    for entry in content["images"]:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            entry = {**entry, "file_name": os.path.join(folder, entry["file_name"])}
        labelled.images.append(entry)
    for entry in content["categories"]:
        if isinstance(entry, dict) and isinstance(entry.get("id"), (int, str)):
            labelled.categories[entry["id"]] = str(entry.get("name"))
    return labelled


def _read_yolo(path: Path, images: Path | None) -> LabelledImages:
    """Read a data set of YOLO segmentation.

    Each image has a .txt file with lines `class x1 y1 x2 y2 ...`. The coordinates are fractions of the image's width
    and height. The images are in the subfolder `images` and the labels in the subfolder `labels`, or both are in the
    folder itself. If there is a file `classes.txt`, it has the names of the classes.
    """
    folder = path.parent if path.is_file() else path
    image_folder = images or (folder / "images" if (folder / "images").is_dir() else folder)
    label_folder = folder / "labels" if (folder / "labels").is_dir() else folder
    labelled = LabelledImages()
    names = _yolo_names(folder, label_folder)
    for name, file in image_files(image_folder, log=lambda note: labelled.problems.add("files not read", note)).items():
        labels = label_folder / f"{stem(name)}.txt"
        if not labels.exists():
            labelled.problems.add("images without a label file, left out", name)
            continue
        try:
            with Image.open(file) as image:
                width, height = ImageOps.exif_transpose(image).size
        except (OSError, ValueError):
            labelled.problems.add("images that cannot be read, left out", name)
            continue
        image_id = labelled.add_image(file, (height, width))
        for number, line in enumerate(labels.read_text(errors="replace").splitlines(), 1):
            place = f"{labels.name}:{number}"
            try:
                index, *coordinates = line.split()
                numbers = [float(word) for word in coordinates]
                category = names.get(int(index), f"class {int(index)}")
            except ValueError:
                if line.strip():
                    labelled.problems.add("lines that are no YOLO label, left out", place)
                continue
            if len(numbers) < 6 or len(numbers) % 2:
                labelled.problems.add("labels without an outline (boxes are not masks), left out", place)
                continue
            polygon = [value * (height if i % 2 else width) for i, value in enumerate(numbers)]
            labelled.add_annotation(image_id, category, [polygon], place)
    return labelled


def _yolo_names(folder: Path, label_folder: Path) -> dict[int, str]:
    for file in (folder / "classes.txt", label_folder / "classes.txt"):
        if file.exists():
            return dict(enumerate(file.read_text(errors="replace").splitlines()))
    return {}


def _read_predictions(path: Path, images: Path | None, category_column: str, scratch: Path) -> LabelledImages:
    """Read the best mask of each prompt from the output of `score`. People may have corrected these masks."""
    table = str(path)
    if path.suffix.lower() == ".csv":
        table = str(_csv_as_parquet(path, scratch))
    predictions = export.read(table, category_column or None)
    labelled = LabelledImages()
    stored = show.is_upright(table) is False
    for line in predictions.describe():
        labelled.problems.add("rows of the table", line)
    for image in predictions.images:
        file = Path(image.name) if images is None else images / image.name
        if "://" in image.name:
            labelled.problems.add("images by URL, left out (download them, and use their paths)", image.name)
            continue
        image_id = labelled.add_image(file, image.size if image.size[0] else None, stored)
        for number, thing in enumerate(image.objects, 1):
            rle = {"size": list(image.size), "counts": thing.counts}
            labelled.add_annotation(image_id, predictions.names[thing.category], rle, f"{file.name} mask {number}")
    return labelled


def _csv_as_parquet(file: Path, scratch: Path) -> Path:
    """Convert a CSV table to Parquet, and its column `predictions` from JSON texts to lists. Raises BadData."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""])
        rows = table.astype(object).where(table.notna(), None).to_dict("records")
        for row in rows:
            text = row.get("predictions")
            row["predictions"] = json.loads(text) if text else []
            row.setdefault("error", None)
        converted = pa.Table.from_pylist(rows)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadData(
            f"'{file}': expected the output of `score` as CSV, with JSON in the column predictions: {reason}"
        ) from None
    scratch.mkdir(parents=True, exist_ok=True)
    pq.write_table(converted, scratch / "predictions.parquet")
    return scratch / "predictions.parquet"
