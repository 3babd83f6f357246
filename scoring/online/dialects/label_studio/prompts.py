"""Read the objects that an annotator has marked in Label Studio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam_endpoint.model.errors import BadInput, kind
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.prompts.cells import check_count

FORM = 'results of type "keypointlabels" or "rectanglelabels" with x and y in percent'
TYPES = {"keypointlabels", "keypoint", "rectanglelabels", "rectangle"}
PERCENT = 100.0


@dataclass
class MarkedObject:
    """An object that the annotator has marked with keypoints, a rectangle, or both.

    Attributes:
        label: label of the object, or None.
        to_name: name of the tag of the object's image, or None.
        box: x1, y1, x2, y2 as fractions of the image's width and height, or None.
        points: (x, y, label). x and y are fractions. The label is 1 for a point on the object, and 0 for other points.
    """

    label: str | None
    to_name: str | None
    box: tuple[float, float, float, float] | None = None
    points: list[tuple[float, float, int]] = field(default_factory=list)

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies in the rectangle."""
        return self.box is not None and self.box[0] <= x <= self.box[2] and self.box[1] <= y <= self.box[3]

    def prompt(self, size: tuple[int, int]) -> Prompt:
        """Return the prompt for an image of (height, width) pixels."""
        height, width = size
        box = None if self.box is None else np.array(self.box, np.float32) * np.array([width, height] * 2, np.float32)
        if not self.points:
            return Prompt(box=box)
        coordinates = np.array([(x * width, y * height) for x, y, _ in self.points], np.float32)
        return Prompt(coordinates, np.array([label for _, _, label in self.points], np.int64), box)


def read_marks(context: object, max_marks: int) -> list[MarkedObject]:
    """Return the objects that an annotator has marked.

    Each rectangle marks an object. A keypoint belongs to every rectangle that contains the keypoint and has the same
    label and image. If no such rectangle contains a negative keypoint, the keypoint belongs to all rectangles with the
    same label and image. The remaining keypoints with the same label and image mark one object together.

    Args:
        context: `{"result": [...]}` as Label Studio sends it. The function ignores results of other types.
        max_marks: maximum number of keypoints and rectangles.

    Raises:
        BadInput: a result has another form, or there are more than `max_marks` keypoints and rectangles.
    """
    if not isinstance(context, dict) or not isinstance(context.get("result"), list):
        raise BadInput("context", '{"result": [...]}', kind(context))
    items = context["result"]
    results = [result for result in items if isinstance(result, dict) and _text(result.get("type")) in TYPES]
    check_count("context", len(results), max_marks, "keypoints and rectangles")
    objects: list[MarkedObject] = []
    points: list[tuple[str | None, str | None, tuple[float, float, int]]] = []
    for number, result in enumerate(results):
        place, value = f"context.result[{number}]", result.get("value")
        if not isinstance(value, dict):
            raise BadInput(place, FORM, kind(value))
        label, to_name = _label(result["type"], value), _text(result.get("to_name"))
        x, y = _number(value, "x", place), _number(value, "y", place)
        if result["type"].startswith("rectangle"):
            width, height = _number(value, "width", place), _number(value, "height", place)
            objects.append(MarkedObject(label, to_name, (x, y, x + width, y + height)))
        else:
            # Positive keypoints of smart tools have no `is_positive`.
            points.append((label, to_name, (x, y, int(bool(result.get("is_positive", 1))))))
    loose: dict[tuple[str | None, str | None], MarkedObject] = {}
    for label, to_name, (x, y, positive) in points:
        same = [marked for marked in objects if (marked.label, marked.to_name) == (label, to_name)]
        owners = [marked for marked in same if marked.contains(x, y)] or ([] if positive else same)
        if not owners:
            owners = [loose.setdefault((label, to_name), MarkedObject(label, to_name))]
        for owner in owners:
            owner.points.append((x, y, positive))
    # Negative keypoints alone select nothing.
    selected = [marked for marked in loose.values() if any(positive for _, _, positive in marked.points)]
    return objects + selected


def _label(kind_of_result: str, value: dict[str, Any]) -> str | None:
    labels = value.get(kind_of_result)
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: dict[str, Any], name: str, place: str) -> float:
    """Return a coordinate in percent as a fraction. Raises BadInput."""
    number = value.get(name)
    if not isinstance(number, (int, float)) or not -PERCENT <= number <= 2 * PERCENT:
        raise BadInput(place, FORM, kind(number))
    return number / PERCENT
