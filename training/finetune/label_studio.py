"""Read a Label Studio export (JSON): brush masks and polygons."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from sam_endpoint.evaluation.coco import read_json
from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData
from sam_endpoint.training.finetune.sources import OBJECT, LabelledImages

MAX_SOURCE = 4096  # characters of a path or URL
LABELS = ("brushlabels", "polygonlabels", "labels")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # before the name of an uploaded file


def read_label_studio(file: Path, images: Path | None) -> LabelledImages:
    """Read the masks of the tasks in an export. If a task has no annotation by a person, read its predictions.

    Args:
        file: A JSON file with a list of tasks.
        images: The folder of the images; None for the folder of the file.

    Raises:
        BadData: The file is not a Label Studio export.
    """
    tasks = read_json(file, "expected a Label Studio export")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadData(f"'{file}': expected a Label Studio export, a list of tasks")
    labelled = LabelledImages()
    for number, task in enumerate(tasks, 1):
        name = f"task {task.get('id', number)}"
        image = _find_image(_image_source(task), images or file.parent)
        if image is None:
            labelled.problems.add("tasks without the path or URL of an image, left out", name)
            continue
        image_id = labelled.add_image(image)
        for place, results in enumerate(_regions(task), 1):
            _add_region(labelled, image_id, results, f"{name} region {place}")
    return labelled


def _image_source(task: dict[str, Any]) -> str:
    """Return the first text in the data of a task, `image` before others. Return an empty text if there is none."""
    data = task.get("data")
    values = [data.get("image"), *data.values()] if isinstance(data, dict) else []
    return next((value for value in values if isinstance(value, str) and value), "")


def _find_image(source: str, folder: Path) -> Path | None:
    """Return the image file of a task, or None if its source is neither a path nor a URL.

    The function looks for the path in a local storage (`?d=`), for the path itself, for the path below the folder, and
    for the name of the file, with and without the prefix that Label Studio adds to uploaded files.
    """
    try:
        parts = urlsplit(source)
    except ValueError:
        return None
    path = unquote(parts.path)
    if parts.scheme == "data" or not Path(path).name or "\0" in path or len(source) > MAX_SOURCE:
        return None
    candidates = [folder / value for value in parse_qs(parts.query).get("d", [])]  # /data/local-files/?d=PATH
    candidates += [Path(source)] if not parts.scheme else []
    candidates += [folder / path.lstrip("/"), folder / Path(path).name]
    candidates += [folder / _UPLOAD_PREFIX.sub("", Path(path).name)]
    candidates += [folder / Path(value).name for value in parse_qs(parts.query).get("d", [])]
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), candidates[-1])


def _regions(task: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the regions of a task. A region has a result for each of its controls; they have the same `id`."""
    for key in ("annotations", "predictions"):
        entries = [entry for entry in _as_list(task.get(key)) if isinstance(entry, dict)]
        entries = [entry for entry in entries if not entry.get("was_cancelled")]
        if entries:
            # Only the last annotation is read. Annotations of several people would contain the same objects twice.
            results = [result for result in _as_list(entries[-1].get("result")) if isinstance(result, dict)]
            regions: dict[object, list[dict[str, Any]]] = {}
            for position, result in enumerate(results):
                identity = result.get("id")
                regions.setdefault(identity if isinstance(identity, str) else position, []).append(result)
            return list(regions.values())
    return []


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _add_region(labelled: LabelledImages, image_id: int, results: list[dict[str, Any]], name: str) -> None:
    values = [value if isinstance(value := result.get("value"), dict) else {} for result in results]
    position = next((position for position, value in enumerate(values) if "rle" in value or "points" in value), None)
    if position is None:
        labelled.problems.add("regions that are no mask (boxes, key points, choices), left out", name)
        return
    region, value = results[position], values[position]
    width, height = region.get("original_width"), region.get("original_height")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        labelled.problems.add("regions without the size of their image, left out", name)
        return
    labels = next((names for entry in values for key in LABELS if (names := entry.get(key))), [OBJECT])
    category = str(labels[0]) if isinstance(labels, list) and labels else OBJECT
    try:
        if "rle" in value:
            mask = decode_brush(bytes(value["rle"]), (height, width))
            rle = masks.to_rle(mask)
            segmentation: Any = {"size": [height, width], "counts": rle["counts"].decode("ascii")}
        else:
            segmentation = [
                [float(n) * side / 100 for x_y in value["points"] for n, side in zip(x_y, (width, height), strict=True)]
            ]
    except (ValueError, TypeError):
        labelled.problems.add("regions that cannot be read, left out", name)
        return
    labelled.add_annotation(image_id, category, segmentation, name)


def decode_brush(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode Label Studio's run lengths of an RGBA image to a mask, which is true where alpha is above 0.

    `scoring.brush.encode_brush` is the inverse function, and describes the format.

    Args:
        data: The run lengths.
        size: (height, width) of the image.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: The data is malformed or belongs to an image of another size.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    text = "".join(map(str, bits.tolist()))
    position = 0

    def read(length: int) -> int:
        nonlocal position
        if position + length > len(text):
            raise ValueError("the run lengths end too early")
        position += length
        return int(text[position - length : position], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if count != 4 * size[0] * size[1]:
        raise ValueError(f"expected {4 * size[0] * size[1]} values, got {count}")
    values = np.zeros(count, np.uint8)
    filled = 0
    while filled < count:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        if filled + length > count:
            raise ValueError("the run lengths have too many values")
        if is_run:
            values[filled : filled + length] = read(word) > 0
        else:
            values[filled : filled + length] = [read(word) > 0 for _ in range(length)]
        filled += length
    mask: NDArray[np.bool_] = values.reshape(*size, 4)[..., 3].astype(bool)
    return mask
