"""Where true masks come from: pictures with things in them, and what was wrong with the data. Scenes are drawn here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model import masks
from model.everything import extent
from training.scenes import Scene, scene

HELD_OUT_SEED = 2
SMALLEST_AREA = 40  # pixels of a scene
MOST_THINGS = 8
SIZES = ("small", "medium", "large")
SHARES = (0.01, 0.1)  # of the image, from which a thing in a scene is medium and large
NAMED = 20
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Thing:
    """One true mask, never empty. name: how it is told, `annotation 12`; size: one of SIZES;
    rle: COCO's compressed run lengths of it, which take little memory where an image has hundreds of things."""

    name: str
    size: str
    rle: dict[str, Any]

    @property
    def mask(self) -> Mask:
        """(height, width) bool."""
        return masks.from_rle(self.rle)


@dataclass(frozen=True)
class Picture:
    """An image, (height, width, 3) uint8, and the things in it, perhaps none."""

    id: object
    name: str
    image: NDArray[np.uint8]
    things: Sequence[Thing]


class Problems:
    """What was wrong with the data: how often each kind, and the names of the first NAMED of it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= NAMED:
            self.names.setdefault(kind, []).append(name)

    def noted(self) -> dict[str, dict[str, Any]]:
        """The same as JSON has it."""
        return {kind: {"count": count, "first": self.names[kind]} for kind, count in self.counts.items()}

    def told(self, most: int = 3) -> str:
        """A line each kind, with the first `most` names."""
        lines = []
        for kind, count in self.counts.items():
            more = ", ..." if count > most else ""
            lines.append(f"{count:6d} {kind}: {', '.join(self.names[kind][:most])}{more}")
        return "\n".join(lines)


class GroundTruth(Protocol):
    """Pictures with true masks, gone through once; `problems` is complete when that is done.

    settings: what the figures depend on, for the report; sizes: what small, medium and large mean here.
    """

    settings: dict[str, Any]
    sizes: str
    problems: Problems

    def __iter__(self) -> Iterator[Picture]: ...


class Scenes:
    """The first `count` held-out scenes: drawn, each with up to MOST_THINGS visible things of 40 pixels or more."""

    sizes = "small: under 1 % of the image, medium: under 10 %, large: from 10 % on"

    def __init__(self, count: int, seed: int = HELD_OUT_SEED) -> None:
        self.settings: dict[str, Any] = {"data": "scenes", "scenes": count, "seed": seed}
        self.problems = Problems()

    def __iter__(self) -> Iterator[Picture]:
        seed = self.settings["seed"]
        for index in tqdm(range(self.settings["scenes"]), unit="scene", desc="judging", disable=None):
            drawn = scene(seed, index)
            true = things(drawn, np.random.default_rng([seed, index]))
            found = [
                Thing(f"thing {number}", SIZES[np.searchsorted(SHARES, mask.mean(), side="right")], masks.to_rle(mask))
                for number, mask in enumerate(true)
            ]
            yield Picture(index, f"scene {index}", drawn.image, found)


def things(drawn: Scene, rng: np.random.Generator) -> list[Mask]:
    """Up to MOST_THINGS visible things of a scene, in random order, (height, width) masks of 40 pixels or more."""
    visible = drawn.things()
    areas = np.bincount(visible.ravel(), minlength=256)
    areas[0] = 0
    found = rng.permutation(np.flatnonzero(areas >= SMALLEST_AREA))[:MOST_THINGS]
    return [visible == label for label in found]


def box_of(true: Mask) -> NDArray[np.float32]:
    """x1, y1, x2, y2 around a (height, width) mask, (4,) float32."""
    x1, y1, x2, y2 = extent(true)
    return np.array([x1, y1, x2 + 1, y2 + 1], dtype=np.float32)
