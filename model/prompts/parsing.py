"""Parse and check the prompt columns of a row: points, labels, boxes and mask inputs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import BadInput
from .cells import Mismatch, check_count, is_missing, parse, parse_cell, reading
from .values import Prompt

LABELS = (1, 0, -1, -10)
# Pixels. The models add half a pixel to each coordinate, but float32 numbers from 2**23 on have no fractions. So the
# limit is far below 2**23.
MAX_COORDINATE = 1e6

POINTS_FORM = "(prompts, points, 2) numbers x,y in pixels"
LABELS_FORM = "(prompts, points) labels, each one of 1, 0, -1, -10"
BOXES_FORM = "(prompts, 4) numbers x1,y1,x2,y2 in pixels"
MASK_FORM = "for each prompt one low_res_logits text or one (height, width) array of logits"


def parse_prompts(
    points: object, labels: object, boxes: object, mask_input: object, max_count: int | None = None
) -> list[Prompt]:
    """Parse the prompts of one row from its four columns.

    Args:
        points: (prompts, points, 2) or (points, 2) x,y in pixels of the image. This and the other columns may be JSON
            text, nested lists or arrays.
        labels: (prompts, points) or (points,) labels: 1 for object, 0 for background, -1 and -10 for padding. By
            default, all labels are 1.
        boxes: (prompts, 4) or (4,) x1,y1,x2,y2 in pixels of the image.
        mask_input: logits of an earlier mask for each prompt, as `low_res_logits` text or (height, width) numbers.
        max_count: maximum number of prompts, and of points in one prompt; None for no limit.

    Returns:
        The prompts in order; an empty list if all columns are missing or empty.

    Raises:
        BadInput: a value has the wrong form, or two columns have different numbers of prompts or points. The error
            names the column.

    Example:
        >>> first, second = parse_prompts(None, None, "[[10, 20, 30, 40], [0, 0, 5, 5]]", None)
        >>> first.box.tolist()
        [10.0, 20.0, 30.0, 40.0]
        >>> parse_prompts([[10, 20], [30, 40]], [1, 0], None, None)[0].labels.tolist()
        [1, 0]
    """
    point_lists = parse_cell("input_points", points, POINTS_FORM, max_count)
    label_lists = parse_cell("input_labels", labels, LABELS_FORM, max_count)
    box_lists = parse_cell("input_boxes", boxes, BOXES_FORM, max_count)
    with reading("input_points"):
        point_sets = _read_points(point_lists, max_count)
    with reading("input_labels"):
        label_sets = _read_labels(label_lists)
    with reading("input_boxes"):
        box_set = read_boxes(box_lists)
    with reading("mask_input"):
        masks = _read_masks(mask_input)
    with reading("input_labels"):
        label_sets = _match_labels(point_sets, label_sets)
    with reading("input_boxes"):
        if point_sets is not None and box_set is not None and len(point_sets) != len(box_set):
            raise Mismatch(f"as many boxes as prompts of points ({len(point_sets)})", got=f"{len(box_set)} boxes")
    counts = [len(part) for part in (point_sets, box_set, masks) if part is not None]
    count = counts[0] if counts else 0
    with reading("mask_input"):
        if masks is not None and len(masks) != count:
            raise Mismatch(f"one mask per prompt ({count})", got=f"{len(masks)} masks")
    return [
        Prompt(
            points=None if point_sets is None else point_sets[i],
            labels=None if label_sets is None else label_sets[i],
            box=None if box_set is None else box_set[i],
            mask=None if masks is None else masks[i],
        )
        for i in range(count)
    ]


def _numbers(value: object, form: str, width: int) -> np.ndarray:
    """Convert a list of lists of `width` finite numbers to an (n, width) float32 array.

    In the messages, `Mismatch` replaces `{}` by the type and the size of the wrong value.

    Args:
        value: the lists.
        form: description of the expected form, for error messages.
        width: length of each inner list.
    """
    if not isinstance(value, list) or not value:
        raise Mismatch(form, value, "an empty list" if value == [] else "")
    for item in value:
        if not isinstance(item, list) or len(item) != width:
            raise Mismatch(form, item, f"{{}} where {width} numbers are expected")
        for number in item:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise Mismatch(form, number, "{} where a number is expected")
            if not -MAX_COORDINATE <= number <= MAX_COORDINATE:  # false for NaN too
                raise Mismatch(
                    f"finite coordinates from -{MAX_COORDINATE:,.0f} to {MAX_COORDINATE:,.0f} pixels",
                    got=_number(number),
                )
    return np.asarray(value, dtype=np.float32)


def _number(number: float) -> str:
    return "a number too large" if isinstance(number, int) else "NaN" if math.isnan(number) else f"{number:g}"


def nesting_depth(value: object) -> int:
    """Return how deeply lists are nested. Only the first item of each list is examined.

    Example:
        >>> nesting_depth([[1, 2], [3, 4]])
        2
    """
    nesting = 0
    while isinstance(value, list):
        nesting += 1
        value = value[0] if value else None
    return nesting


def _nested(value: object, depth: int, form: str) -> Any:
    """Return lists that are nested `depth` deep. Lists that are nested one level less become the only item of a list.

    Raises:
        Mismatch: the lists have another depth.
    """
    nesting = nesting_depth(value)
    if nesting == depth - 1:
        return [value]
    if nesting != depth:
        raise Mismatch(form, value, f"{{}} nested {nesting} deep")
    return value


def _read_points(value: Any, max_count: int | None) -> list[np.ndarray] | None:
    if value is None:
        return None
    prompts = _nested(value, 3, POINTS_FORM)
    longest = max(len(prompt) if isinstance(prompt, list) else 0 for prompt in prompts)
    if max_count is not None and longest > max_count:
        raise Mismatch(f"at most {max_count} points per prompt", got=str(longest))
    return [_numbers(prompt, POINTS_FORM, 2) for prompt in prompts]


def read_boxes(value: Any, form: str = BOXES_FORM) -> np.ndarray | None:
    """Convert nested lists to (n, 4) float32 boxes, or None to None. Raises Mismatch with the expected form."""
    if value is None:
        return None
    boxes = _numbers(_nested(value, 2, form), form, 4)
    for box in boxes:
        if box[2] <= box[0] or box[3] <= box[1]:
            corners = ",".join(f"{number:g}" for number in box)
            raise Mismatch("x1,y1,x2,y2 with x2 > x1 and y2 > y1", got=f"a box {corners}")
    return boxes


def _read_labels(value: Any) -> list[np.ndarray] | None:
    if value is None:
        return None
    prompts = _nested(value, 2, LABELS_FORM)
    for prompt in prompts:
        if not isinstance(prompt, list):
            raise Mismatch(LABELS_FORM, prompt, "{} where a list is expected")
        for label in prompt:
            if isinstance(label, bool) or not isinstance(label, (int, float)) or label not in LABELS:
                raise Mismatch(LABELS_FORM, label)
    return [np.asarray(prompt, dtype=np.int64) for prompt in prompts]


def _match_labels(points: list[np.ndarray] | None, labels: list[np.ndarray] | None) -> list[np.ndarray] | None:
    """Check that labels fit the points. If there are no labels, return 1 for each point."""
    if points is None:
        if labels is not None:
            raise Mismatch("input_points for the labels", got="labels without points")
        return None
    if labels is None:
        return [np.ones(len(prompt), dtype=np.int64) for prompt in points]
    if len(labels) != len(points):
        raise Mismatch(
            f"labels for {len(points)} prompts, because input_points has {len(points)}", got=str(len(labels))
        )
    for i, (prompt_points, prompt_labels) in enumerate(zip(points, labels, strict=True)):
        if len(prompt_points) != len(prompt_labels):
            raise Mismatch(
                f"{len(prompt_points)} labels for prompt {i}, one per point", got=f"{len(prompt_labels)} labels"
            )
    return labels


def _read_masks(value: object) -> list[np.ndarray] | None:
    """Parse the `mask_input` column to one (h, w) float32 array per prompt."""
    if is_missing(value):
        return None
    if isinstance(value, str) and not value.lstrip().startswith(("[", '"')):  # not JSON, so base64 text
        return [_read_npy(value)]
    value = parse(value, MASK_FORM)
    if value is None:
        return None
    if isinstance(value, str):
        return [_read_npy(value)]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [_read_npy(item) for item in value]
    try:
        masks = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise Mismatch(MASK_FORM, value, "{} that is not a rectangular array of numbers") from None
    if masks.ndim == 2:
        masks = masks[None]
    if masks.ndim != 3:
        raise Mismatch(MASK_FORM, got=f"numbers of shape {masks.shape}")
    return [_check_logits(mask) for mask in masks]


def _read_npy(text: str) -> np.ndarray:
    mask = _decode_npy(text, "base64 text of a .npy file, as in low_res_logits")
    if mask.dtype.kind not in "fiu" or mask.ndim != 2:
        raise Mismatch(MASK_FORM, mask, "a .npy of {}")
    return _check_logits(mask.astype(np.float32))


def decode_npy(column: str, text: object, expected: str) -> np.ndarray:
    """Decode base64 text of a `.npy` file to an array.

    Args:
        column: name of the column, for error messages.
        text: the text.
        expected: description of the expected form, for error messages.

    Raises:
        BadInput: `text` is not base64 text of a `.npy` file, or the file holds pickled objects.
    """
    with reading(column):
        return _decode_npy(text, expected)


def _decode_npy(text: object, expected: str) -> np.ndarray:
    try:
        if not isinstance(text, str):
            raise ValueError
        data = base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
        array = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError
    except Exception:  # numpy's header parser raises many types of exceptions
        raise Mismatch(expected, text) from None
    return array


def check_logits(mask: np.ndarray) -> np.ndarray:
    """Return the logits of a mask input. Raises BadInput for NaN and for numbers that could overflow in the network."""
    with reading("mask_input"):
        return _check_logits(mask)


def _check_logits(mask: np.ndarray) -> np.ndarray:
    if not (np.abs(mask) <= MAX_COORDINATE).all():
        raise Mismatch(
            f"finite logits from -{MAX_COORDINATE:,.0f} to {MAX_COORDINATE:,.0f}", got="NaN or larger numbers"
        )
    return mask


def check_prompts(prompts: Sequence[Prompt], max_count: int, mask_size: tuple[int, int]) -> None:
    """Raise BadInput if there are too many prompts or points, or if a mask input has another size.

    Args:
        prompts: the prompts of one image.
        max_count: maximum number of prompts, and of points in a prompt.
        mask_size: (height, width) of mask inputs.
    """
    column = "input_boxes" if prompts and prompts[0].box is not None else "input_points"
    check_count(column, len(prompts), max_count)
    points = max((len(prompt.points) for prompt in prompts if prompt.points is not None), default=0)
    check_count("input_points", points, max_count, "points per prompt")
    shapes = {prompt.mask.shape for prompt in prompts if prompt.mask is not None} - {mask_size}
    if shapes:
        height, width = mask_size
        raise BadInput("mask_input", f"logits of {height} x {width}", "x".join(map(str, min(shapes))))
