"""What an evaluation compares with: images with true masks, and the problems of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.model import masks

SIZES = ("small", "medium", "large")
MAX_NAMES = 20


@dataclass(frozen=True)
class TrueObject:
    """One true mask, never empty.

    Attributes:
        name: The name in reports, for example `annotation 12`.
        size: One of SIZES.
        rle: The mask as COCO's compressed run lengths, which need little memory for images with hundreds of objects.
    """

    name: str
    size: str
    rle: masks.RunLengths

    @property
    def mask(self) -> Mask:
        """The mask, (height, width) bool."""
        return masks.from_rle(self.rle)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image, (height, width, 3) uint8, and its true objects, perhaps none."""

    id: object
    name: str
    pixels: NDArray[np.uint8]
    objects: Sequence[TrueObject]


class Problems:
    """The problems of a data set: the count of each kind, and the names of its first MAX_NAMES cases."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one case of a kind of problem."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_NAMES:
            self.names.setdefault(kind, []).append(name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the count and the first names of each kind, for JSON."""
        return {kind: {"count": count, "first": self.names[kind]} for kind, count in self.counts.items()}

    def format_lines(self, max_names: int = 3) -> str:
        """Return a line for each kind, with its count and its first `max_names` names."""
        lines = []
        for kind, count in self.counts.items():
            more = ", ..." if count > max_names else ""
            lines.append(f"{count:6d} {kind}: {', '.join(self.names[kind][:max_names])}{more}")
        return "\n".join(lines)


class GroundTruth(Protocol):
    """A data set of images with true masks, which is read once.

    Attributes:
        settings: What the results depend on, for the report.
        sizes: What small, medium and large mean in this data set.
        problems: The problems of the data set; complete after the last image.
    """

    settings: dict[str, Any]
    sizes: str
    problems: Problems

    def __iter__(self) -> Iterator[AnnotatedImage]: ...
