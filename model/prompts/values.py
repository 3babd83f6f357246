"""Prompts as values, and batches of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """Selects one object: by points with labels, a box, the logits of an earlier mask, or several of these.

    Attributes:
        points: (n, 2) float32 x,y in pixels of the image, or None.
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
        """Return the number of points, and whether there is a box and a mask. Prompts of equal layout form a batch."""
        return (0 if self.points is None else len(self.points), self.box is not None, self.mask is not None)

    def scaled(self, x: float, y: float) -> Prompt:
        """Return the same prompt with its coordinates multiplied by `x` and `y`."""
        factors = np.array([x, y], dtype=np.float32)
        return replace(
            self,
            points=None if self.points is None else self.points * factors,
            box=None if self.box is None else self.box * np.tile(factors, 2),
        )


# A padding point alone: the model's mask of an image without any prompt.
EMPTY_PROMPT = Prompt(np.zeros((1, 2), np.float32), np.array([-1]))


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of one layout, stacked.

    Attributes:
        points: (p, n, 2) float32 x,y in pixels, or None.
        labels: (p, n) int64, or None.
        boxes: (p, 4) float32 x1,y1,x2,y2 in pixels, or None.
        masks: (p, h, w) float32 logits, or None.
    """

    points: np.ndarray | None
    labels: np.ndarray | None
    boxes: np.ndarray | None
    masks: np.ndarray | None


def group_by_layout(prompts: Sequence[Prompt], max_size: int) -> Iterator[list[int]]:
    """Yield lists of positions of prompts with equal layout, at most `max_size` in each.

    Prompts with different numbers of points are not padded to one length, because padding tokens take part in the
    decoder's attention: a mask would depend on the other prompts of its batch.
    """
    by_layout: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        by_layout[prompt.layout].append(position)
    for positions in by_layout.values():
        for start in range(0, len(positions), max_size):
            yield positions[start : start + max_size]


def stack(prompts: Sequence[Prompt]) -> PromptBatch:
    """Stack prompts of equal layout into one batch."""
    return PromptBatch(
        points=_stack([prompt.points for prompt in prompts]),
        labels=_stack([prompt.labels for prompt in prompts]),
        boxes=_stack([prompt.box for prompt in prompts]),
        masks=_stack([prompt.mask for prompt in prompts]),
    )


def _stack(parts: list[np.ndarray | None]) -> np.ndarray | None:
    present = [part for part in parts if part is not None]
    return np.stack(present) if present else None
