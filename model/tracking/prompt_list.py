"""Parse the list of prompts of a video, such as the content of `prompts.json`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from .. import json_text
from ..call import UNTRACKED, Call
from ..coco_masks import run_lengths
from ..errors import BadFrame, BadInput, kind
from ..masks import from_rle
from ..prompts import parse_prompts
from ..prompts.cells import MAX_VALUES, count_values
from .values import TrackPrompt

COLUMN = "prompts"  # named in error messages
FORM = 'a list of prompts such as [{"frame": 0, "object": 1, "points": [[x, y]], "labels": [1]}]'
FIELDS = ("frame", "object", "points", "labels", "box", "mask")
MAX_PROMPTS = 100_000
MAX_POINTS = 1000  # of one prompt
MAX_OBJECT = 2**31 - 1
_NAMES = {"input_points": "points", "input_labels": "labels", "input_boxes": "box"}


def parse_track_prompts(
    value: object,
    size: tuple[int, int],
    count: int | None = None,
    max_prompts: int | None = None,
    known: Collection[int] = (),
    call: Call = UNTRACKED,
) -> list[TrackPrompt]:
    """Parse and check the prompts of a video.

    Args:
        value: the list, or its JSON text. Each item is an object with `frame`, `object`, and either `mask`, or `points`
            (with `labels`), or `box`, or both. `mask` is a COCO segmentation: run lengths or polygons.
        size: (height, width) of the frames in pixels.
        count: number of frames of the video; None if unknown.
        max_prompts: maximum number of prompts; None for MAX_PROMPTS.
        known: numbers of objects that have prompts already. Their prompts may have background points only.
        call: context of the request. It holds the memory of the masks, and each prompt is parsed in a turn.

    Returns:
        The prompts, sorted by frame and object.

    Raises:
        BadFrame: a prompt is malformed, its frame does not exist, or two prompts are for one object on one frame. The
            error names the frame.
        BadInput: the value is not a list of prompts, or an object has only background points.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Call.keep` and `Call.check`.

    Example:
        >>> (prompt,) = parse_track_prompts('[{"frame": 0, "object": 1, "points": [[20, 30]]}]', (40, 60))
        >>> prompt.points.tolist(), prompt.labels.tolist()
        ([[20.0, 30.0]], [1])
    """
    with call.stage("parse"):
        items = _parse_list(value, max_prompts or MAX_PROMPTS)
    prompts: dict[tuple[int, int], TrackPrompt] = {}
    for position, item in enumerate(items):
        if isinstance(item, dict) and item.get("mask") is not None:
            call.keep(size[0] * size[1])
        with call.stage("parse"):
            prompt = _parse(item, position, size, count)
        if (prompt.frame, prompt.object) in prompts:
            expected = "one prompt per object and frame, with all its points"
            raise BadFrame(COLUMN, expected, f"a second prompt for object {prompt.object}", frame=prompt.frame)
        prompts[prompt.frame, prompt.object] = prompt
    objects = {prompt.object for prompt in prompts.values()}
    for number in sorted(objects - set(known) - {prompt.object for prompt in prompts.values() if _selects(prompt)}):
        raise BadInput(
            COLUMN, "an object point, a box or a mask for each object", f"only background points for object {number}"
        )
    return [prompts[place] for place in sorted(prompts)]


def _selects(prompt: TrackPrompt) -> bool:
    """Return whether a prompt selects something, and does not only exclude background."""
    if prompt.box is not None or prompt.mask is not None:
        return True
    return prompt.labels is not None and bool(np.any(prompt.labels == 1))


def _parse_list(value: object, max_prompts: int) -> list[Any]:
    if isinstance(value, (str, bytes)):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if (values := count_values(text)) > MAX_VALUES:
            raise BadInput(COLUMN, f"JSON of at most {MAX_VALUES:,} lists and numbers", f"{values:,}")
        try:
            value = json_text.loads(text)
        except (ValueError, RecursionError):
            raise BadInput(COLUMN, f"{FORM}, as JSON", f"{kind(text)} that is not JSON") from None
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict) and set(value) == {"prompts"}:
        value = value["prompts"]
    if not isinstance(value, list) or not value:
        raise BadInput(COLUMN, FORM, "an empty list" if value == [] else kind(value))
    if len(value) > max_prompts:
        raise BadInput(COLUMN, f"at most {max_prompts:,} prompts", f"{len(value):,}")
    return value


def _parse(item: Any, position: int, size: tuple[int, int], count: int | None) -> TrackPrompt:
    if not isinstance(item, dict):
        raise BadInput(COLUMN, FORM, f"{kind(item)} as prompt {position}")
    unknown = [name for name in item if name not in FIELDS]
    if unknown:
        raise BadInput(COLUMN, f"the fields {', '.join(FIELDS)}", f"another field in prompt {position}")
    frame = _number(item, "frame", position, MAX_OBJECT)
    number = _number(item, "object", position, MAX_OBJECT)
    if count is not None and frame >= count:
        raise BadFrame(COLUMN, f"a frame of the video, 0 to {count - 1}", "a prompt after its end", frame=frame)
    points, labels, box, mask = (item.get(name) for name in ("points", "labels", "box", "mask"))
    if mask is not None:
        if points is not None or box is not None or labels is not None:
            raise BadFrame(COLUMN, "a mask without points and box", f"both for object {number}", frame=frame)
        return TrackPrompt(frame, number, mask=_parse_mask(mask, size, frame))
    try:
        parsed = parse_prompts(points, labels, box, None)
    except BadInput as error:
        expected = error.expected.replace("(prompts, ", "(").replace("input_", "")
        raise BadFrame(
            COLUMN, f"{expected} in '{_NAMES[error.column]}' of object {number}", error.got, frame=frame
        ) from None
    if len(parsed) != 1:
        expected = f"points, a box or a mask of one object in each prompt, here object {number}"
        raise BadFrame(COLUMN, expected, f"{len(parsed)} sets of them", frame=frame)
    (prompt,) = parsed
    if prompt.points is not None and len(prompt.points) > MAX_POINTS:
        expected = f"at most {MAX_POINTS:,} points for object {number}"
        raise BadFrame(COLUMN, expected, f"{len(prompt.points):,}", frame=frame)
    if prompt.labels is not None and not np.isin(prompt.labels, (0, 1)).all():
        raise BadFrame(COLUMN, "labels 1 (object) and 0 (background)", "another label", frame=frame)
    given = None if prompt.labels is None else prompt.labels.astype(np.int32)
    return TrackPrompt(frame, number, prompt.points, given, prompt.box)


def _number(item: dict[str, Any], name: str, position: int, largest: int) -> int:
    value = item.get(name)
    if isinstance(value, float) and value.is_integer():  # as pandas stores a column with missing values
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        expected = f"a whole number from 0 to {largest} as '{name}' of prompt {position}"
        raise BadInput(COLUMN, expected, kind(value))
    return value


def _parse_mask(value: Any, size: tuple[int, int], frame: int) -> np.ndarray:
    try:
        rle = run_lengths(value, size)
    except ValueError as error:
        expected, _, got = str(error).removeprefix("expected ").partition(", got ")
        raise BadFrame(
            COLUMN, f"a mask as COCO segmentation: {expected}", got or "another value", frame=frame
        ) from None
    mask = None if rle is None else from_rle(rle)
    if mask is None or not mask.any():
        raise BadFrame(COLUMN, "a mask with at least 1 pixel", "an empty mask", frame=frame)
    return mask
