"""Check the prompts of a frame, and join the prompts of one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..errors import BadFrame, kind
from .values import TrackPrompt

BOX_LABELS = (2, 3)  # SAM 2's labels of the upper left and the lower right corner of a box


def prompts_of_frame(prompts: Iterable[TrackPrompt], size: tuple[int, int]) -> dict[int, TrackPrompt]:
    """Check the prompts of one frame, and join the points of the prompts of one object.

    Args:
        prompts: the prompts of the frame.
        size: (height, width) of the frame in pixels.

    Returns:
        One prompt per object, by the object's number.

    Raises:
        BadFrame: a prompt is malformed, or an object has two boxes or a mask with other prompts.

    Example:
        >>> clicks = [TrackPrompt(0, 1, np.zeros((1, 2), np.float32)) for _ in range(2)]
        >>> prompts_of_frame(clicks, (40, 60))[1].points.shape
        (2, 2)
    """
    joined: dict[int, TrackPrompt] = {}
    for prompt in prompts:
        checked = _check(prompt, size)
        earlier = joined.get(prompt.object)
        joined[prompt.object] = checked if earlier is None else _join(earlier, checked)
    return joined


def as_points(prompt: TrackPrompt) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (n, 2) and labels (n,) of a checked prompt. The corners of its box come first."""
    points, labels = [], []
    if prompt.box is not None:
        points.append(prompt.box.reshape(2, 2))
        labels.append(np.array(BOX_LABELS))
    if prompt.points is not None and prompt.labels is not None:
        points.append(prompt.points)
        labels.append(prompt.labels)
    return np.concatenate(points).astype(np.float32), np.concatenate(labels).astype(np.int64)


def _join(first: TrackPrompt, second: TrackPrompt) -> TrackPrompt:
    """Join two checked prompts on the same object."""
    if first.mask is not None or second.mask is not None:
        expected = f"a mask alone, or points and a box, for object {first.object}"
        raise BadFrame("prompts", expected, "a mask and another prompt", frame=first.frame)
    if first.box is not None and second.box is not None:
        raise BadFrame("prompts", f"one box for object {first.object}", "two boxes", frame=first.frame)
    points, labels = (
        np.concatenate(present) if (present := [part for part in parts if part is not None]) else None
        for parts in ((first.points, second.points), (first.labels, second.labels))
    )
    return replace(first, points=points, labels=labels, box=second.box if first.box is None else first.box)


def _check(prompt: TrackPrompt, size: tuple[int, int]) -> TrackPrompt:
    """Return a prompt with labels, and without empty arrays. Raise BadFrame if it is malformed."""
    points = None if prompt.points is None or not len(prompt.points) else np.asarray(prompt.points)
    place = f"object {prompt.object}"

    def fail(expected: str, got: str) -> BadFrame:
        return BadFrame("prompts", f"{expected} for {place}", got, frame=prompt.frame)

    if points is None and prompt.box is None and prompt.mask is None:
        raise fail("points, a box or a mask", "none of them")
    if prompt.mask is not None:
        if points is not None or prompt.box is not None:
            raise fail("a mask alone, or points and a box", "a mask and another prompt")
        if prompt.mask.shape != size or prompt.mask.dtype != np.bool_:
            expected = f"a mask of {size[0]} x {size[1]} bool, the size of the frame"
            raise fail(expected, f"{kind(prompt.mask)} of {prompt.mask.dtype}")
    if prompt.box is not None:
        box = np.asarray(prompt.box)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise fail("a box of 4 finite numbers", kind(box))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise fail("a box x1,y1,x2,y2 with x1 < x2 and y1 < y2", "a box without an area")
    if points is None:
        return replace(prompt, points=None, labels=None)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise fail("points (n, 2) of finite numbers", kind(points))
    labels = np.ones(len(points), np.int32) if prompt.labels is None else np.asarray(prompt.labels)
    if labels.shape != (len(points),):
        raise fail(f"{len(points)} labels, one per point", kind(labels))
    if not np.isin(labels, (0, 1)).all():
        raise fail("labels of 0 (background) and 1 (object)", "another label")
    return replace(prompt, points=points, labels=labels)
