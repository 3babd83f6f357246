"""Points, boxes, labels and mask inputs: read, checked and batched."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from model.errors import BadInput, kind

LABELS = (1, 0, -1, -10)
FARTHEST = 1e6  # pixels; beyond it float32 coordinates lose the half pixel that the models add
MISSING_TEXT = ("", "none", "null", "nan")

POINTS_FORM = "(prompts, points, 2) numbers x,y in pixels"
LABELS_FORM = "(prompts, points) labels, each one of 1, 0, -1, -10"
BOXES_FORM = "(prompts, 4) numbers x1,y1,x2,y2 in pixels"
MASK_FORM = "one low_res_logits text or one (height, width) array of logits a prompt"


@dataclass(frozen=True)
class Prompt:
    """What names one object: points with labels, a box, an earlier answer's logits, or several of these.

    points: (n, 2) float32 x,y in pixels of the image as stored, or None.
    labels: (n,) int64: 1 object, 0 not object, -1 and -10 padding; None without points.
    box: (4,) float32 x1,y1,x2,y2 in pixels, or None.
    mask: (h, w) float32 low-resolution logits, or None.
    """

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def layout(self) -> tuple[int, bool, bool]:
        """Number of points, has a box, has a mask: prompts of one layout can be decoded in one batch."""
        return (0 if self.points is None else len(self.points), self.box is not None, self.mask is not None)

    def scaled(self, x: float, y: float) -> Prompt:
        """The same prompt with its coordinates multiplied by `x` and `y`."""
        factors = np.array([x, y], dtype=np.float32)
        return replace(
            self,
            points=None if self.points is None else self.points * factors,
            box=None if self.box is None else self.box * np.tile(factors, 2),
        )


# A point that is none: how a mask is asked for by nothing but the image.
NOTHING = Prompt(np.zeros((1, 2), np.float32), np.array([-1]))


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of one layout, stacked.

    points (p, n, 2) float32, labels (p, n) int64, boxes (p, 4) float32, masks (p, h, w) float32; each may be None.
    """

    points: np.ndarray | None
    labels: np.ndarray | None
    boxes: np.ndarray | None
    masks: np.ndarray | None


def batches(prompts: Sequence[Prompt], largest: int) -> Iterator[list[int]]:
    """Positions of prompts of one layout, at most `largest` together.

    Prompts with different numbers of points are not padded to one length: padding tokens take part in the decoder's
    attention, so that a mask would depend on its neighbours.
    """
    by_layout: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        by_layout[prompt.layout].append(position)
    for positions in by_layout.values():
        for start in range(0, len(positions), largest):
            yield positions[start : start + largest]


def batch(prompts: Sequence[Prompt]) -> PromptBatch:
    """Prompts of one layout as one."""
    return PromptBatch(
        points=_stack([prompt.points for prompt in prompts]),
        labels=_stack([prompt.labels for prompt in prompts]),
        boxes=_stack([prompt.box for prompt in prompts]),
        masks=_stack([prompt.mask for prompt in prompts]),
    )


def _stack(parts: list[np.ndarray | None]) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    return np.stack(present) if present else None


def read(points: object, labels: object, boxes: object, mask_input: object, most: int | None = None) -> list[Prompt]:
    """The prompts of one row from its four columns, each JSON text, nested lists or arrays; empty without any.

    most: most prompts, and most points of one. Raises BadInput with the column when a form, a number or a count is
    wrong.
    """
    point_sets = _read_points(parse("input_points", points, POINTS_FORM, most), most)
    label_sets = _read_labels(parse("input_labels", labels, LABELS_FORM, most))
    box_set = _read_boxes(parse("input_boxes", boxes, BOXES_FORM, most))
    masks = _read_masks(mask_input)
    if label_sets is not None and point_sets is None:
        raise BadInput("input_labels", "input_points to go with the labels", "labels without points")
    if point_sets is not None:
        label_sets = _match_labels(point_sets, label_sets)
    if point_sets is not None and box_set is not None and len(point_sets) != len(box_set):
        raise BadInput(
            "input_boxes",
            f"as many boxes as prompts of points ({len(point_sets)})",
            f"{len(box_set)} boxes",
        )
    counts = [len(part) for part in (point_sets, box_set, masks) if part is not None]
    count = counts[0] if counts else 0
    if masks is not None and len(masks) != count:
        raise BadInput("mask_input", f"one mask a prompt ({count})", f"{len(masks)} masks")
    return [
        Prompt(
            points=None if point_sets is None else point_sets[i],
            labels=None if label_sets is None else label_sets[i],
            box=None if box_set is None else box_set[i],
            mask=None if masks is None else masks[i],
        )
        for i in range(count)
    ]


def is_missing(value: object) -> bool:
    """True for what a table, a CSV file or JSON writes where there is nothing."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING_TEXT
    if isinstance(value, (list, tuple)):
        return not value
    if isinstance(value, np.ndarray):
        return value.size == 0 if value.ndim else is_missing(value.item())
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")


def parse(column: str, value: object, form: str, most: int | None = None) -> Any:
    """A cell as plain nested lists (or whatever its JSON says), None when it is missing.

    most: longest list, looked at before all others so that a far too long one takes no time.
    """
    if is_missing(value):
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadInput(column, f"{form}, as JSON", f"{kind(value)} that is not JSON") from None
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        check_count(column, len(value), most)
    try:
        value = _plain(value)
    except RecursionError:
        raise BadInput(column, form, "lists nested too deep") from None
    return None if is_missing(value) else value


def check_count(column: str, count: int, most: int | None, what: str = "prompts") -> None:
    """Raises BadInput for more than `most`; None is any number."""
    if most is not None and count > most:
        raise BadInput(column, f"at most {most} {what}", str(count))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _numbers(column: str, value: object, form: str, width: int) -> np.ndarray:
    """A list of `width`-tuples of finite numbers as float32 (n, width)."""
    if not isinstance(value, list) or not value:
        raise BadInput(column, form, kind(value) if value != [] else "an empty list")
    for item in value:
        if not isinstance(item, list) or len(item) != width:
            raise BadInput(column, form, f"{kind(item)} where {width} numbers should stand")
        for number in item:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise BadInput(column, form, f"{kind(number)} where a number should stand")
            if not -FARTHEST <= number <= FARTHEST:  # false for NaN too
                raise BadInput(column, f"finite coordinates within {FARTHEST:,.0f} pixels", _number(number))
    return np.asarray(value, dtype=np.float32)


def _number(number: float) -> str:
    return "a number too large" if isinstance(number, int) else "NaN" if math.isnan(number) else f"{number:g}"


def depth(value: object) -> int:
    """How deep lists are nested, along their first items."""
    nesting = 0
    while isinstance(value, list):
        nesting += 1
        value = value[0] if value else None
    return nesting


def _read_points(value: Any, most: int | None) -> list[np.ndarray] | None:
    if value is None:
        return None
    nesting = depth(value)
    if nesting == 2:
        value = [value]
    elif nesting != 3:
        raise BadInput("input_points", POINTS_FORM, f"{kind(value)} nested {nesting} deep")
    for prompt in value:
        check_count("input_points", len(prompt) if isinstance(prompt, list) else 0, most, "points a prompt")
    return [_numbers("input_points", prompt, POINTS_FORM, 2) for prompt in value]


def _read_boxes(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    nesting = depth(value)
    if nesting == 1:
        value = [value]
    elif nesting != 2:
        raise BadInput("input_boxes", BOXES_FORM, f"{kind(value)} nested {nesting} deep")
    boxes = _numbers("input_boxes", value, BOXES_FORM, 4)
    for box in boxes:
        if box[2] <= box[0] or box[3] <= box[1]:
            raise BadInput(
                "input_boxes",
                "x1,y1,x2,y2 with x2 > x1 and y2 > y1",
                "a box " + ",".join(f"{number:g}" for number in box),
            )
    return boxes


def _read_labels(value: Any) -> list[np.ndarray] | None:
    if value is None:
        return None
    nesting = depth(value)
    if nesting == 1:
        value = [value]
    elif nesting != 2:
        raise BadInput("input_labels", LABELS_FORM, f"{kind(value)} nested {nesting} deep")
    for prompt in value:
        if not isinstance(prompt, list):
            raise BadInput("input_labels", LABELS_FORM, f"{kind(prompt)} where a list should stand")
        for label in prompt:
            if isinstance(label, bool) or not isinstance(label, (int, float)) or label not in LABELS:
                raise BadInput("input_labels", LABELS_FORM, kind(label))
    return [np.asarray(prompt, dtype=np.int64) for prompt in value]


def _match_labels(points: list[np.ndarray], labels: list[np.ndarray] | None) -> list[np.ndarray]:
    if labels is None:
        return [np.ones(len(prompt), dtype=np.int64) for prompt in points]
    if len(labels) != len(points):
        raise BadInput(
            "input_labels", f"labels for {len(points)} prompts, as many as input_points has", f"{len(labels)}"
        )
    for i, (some_points, some_labels) in enumerate(zip(points, labels, strict=True)):
        if len(some_points) != len(some_labels):
            raise BadInput(
                "input_labels",
                f"{len(some_points)} labels for prompt {i}, one a point",
                f"{len(some_labels)} labels",
            )
    return labels


def _read_masks(value: object) -> list[np.ndarray] | None:
    """Mask inputs as a list of (h, w) float32 logits."""
    if is_missing(value):
        return None
    if isinstance(value, str) and not value.lstrip().startswith(("[", '"')):
        return [_read_npy(value)]
    value = parse("mask_input", value, MASK_FORM)
    if value is None:
        return None
    if isinstance(value, str):
        return [_read_npy(value)]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [_read_npy(item) for item in value]
    try:
        masks = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise BadInput("mask_input", MASK_FORM, f"{kind(value)} of other things") from None
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3:
        raise BadInput("mask_input", MASK_FORM, f"numbers of shape {masks.shape}")
    return [bounded(mask) for mask in masks]


def _read_npy(text: str) -> np.ndarray:
    mask = npy("mask_input", text, "base64 of a .npy array, as low_res_logits has it")
    if mask.dtype.kind not in "fiu" or mask.ndim != 2:
        raise BadInput("mask_input", MASK_FORM, f"a .npy of {kind(mask)}")
    return bounded(mask.astype(np.float32))


def npy(column: str, text: object, expected: str) -> np.ndarray:
    """The array of a base64 `.npy`, never a pickled object. Raises BadInput."""
    try:
        if not isinstance(text, str):
            raise ValueError
        data = base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError
    except Exception:  # numpy's reader of headers raises what it likes
        raise BadInput(column, expected, kind(text)) from None
    return array


def bounded(mask: np.ndarray) -> np.ndarray:
    """The logits as they are. Raises BadInput for NaN, and for numbers that the network would turn into it."""
    if not (np.abs(mask) <= FARTHEST).all():
        raise BadInput("mask_input", f"finite logits within {FARTHEST:,.0f}", "NaN or larger ones")
    return mask
