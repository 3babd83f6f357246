"""The classes for prompts and for batches of prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Prompt:
    """A prompt selects one object by points with labels, a box, the logits of an earlier mask, or several of these.

    Attributes:
        points: (n, 2) float32 x,y in pixels of the image, or None.
        labels: (n,) int64 label of each point: 1 for object, 0 for background, -1 and -10 for padding. None without
            points.
        box: (4,) float32 x1,y1,x2,y2 in pixels of the image, or None.
        mask: (h, w) float32 low-resolution logits, or None.

    Example:
        >>> Prompt(np.array([[20, 30]], np.float32), np.array([1])).scaled(2, 0.5).points.tolist()
        [[40.0, 15.0]]
    """

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def layout(self) -> tuple[int, bool, bool]:
        """Number of points, whether there is a box, whether there is a mask. Prompts of one layout can form a batch."""
        return (0 if self.points is None else len(self.points), self.box is not None, self.mask is not None)

    def scaled(self, x: float, y: float) -> Prompt:
        """Return a copy of the prompt with its coordinates multiplied by `x` and `y`."""
        factors = np.array([x, y], dtype=np.float32)
        return replace(
            self,
            points=None if self.points is None else self.points * factors,
            box=None if self.box is None else self.box * np.tile(factors, 2),
        )


# A prompt with only a padding point. For this prompt, the model predicts masks as if there were no prompt.
EMPTY_PROMPT = Prompt(np.zeros((1, 2), np.float32), np.array([-1]))


@dataclass(frozen=True)
class PromptBatch:
    """The arrays of p prompts of equal layout, stacked.

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
    """Divide prompts into batches of equal layout.

    Prompts with different numbers of points are not padded to the same length. Padding tokens take part in the
    decoder's attention, so a mask would depend on the other prompts in the batch.

    Args:
        prompts: the prompts.
        max_size: maximum number of prompts in a batch.

    Yields:
        The indices of the prompts of one batch.

    Example:
        >>> box = Prompt(box=np.zeros(4, np.float32))
        >>> list(group_by_layout([box, EMPTY_PROMPT, box], max_size=16))
        [[0, 2], [1]]
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
