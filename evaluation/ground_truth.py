"""Interface of a data set with ground truth: images, true masks, and the problems of the data."""

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
MAX_NAMES = 20  # cases of each kind of problem whose names are stored


@dataclass(frozen=True)
class TrueObject:
    """An object with its true mask, which is never empty.

    Attributes:
        name: The name in reports, for example `annotation 12`.
        size: One of SIZES.
        rle: The mask as COCO's compressed run lengths, because images can have hundreds of objects.
    """

    name: str
    size: str
    rle: masks.RunLengths

    @property
    def mask(self) -> Mask:
        """The mask, `(H, W)` bool."""
        return masks.from_rle(self.rle)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its true objects.

    Attributes:
        id: The id in the data set.
        name: The name in reports.
        pixels: `(H, W, 3)` uint8 RGB.
        objects: The objects; an image can have none.
    """

    id: object
    name: str
    pixels: NDArray[np.uint8]
    objects: Sequence[TrueObject]


class Problems:
    """The problems of a data set: for each kind of problem, the number of cases and the names of the first cases.

    Example:
        >>> problems = Problems()
        >>> problems.add("images missing, left out", "a.png")
        >>> problems.format_lines()
        '     1 images missing, left out: a.png'
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count a case of a problem.

        Args:
            kind: The kind of problem and its consequence. It is also the name of a metric in MLflow.
            name: The name of the image or annotation.
        """
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_NAMES:
            self.names.setdefault(kind, []).append(name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the number of cases and the first names of each kind, for JSON."""
        return {kind: {"count": count, "first": self.names[kind]} for kind, count in self.counts.items()}

    def format_lines(self, max_names: int = 3) -> str:
        """Return a line for each kind of problem, with the number of cases and the first `max_names` names."""
        lines = []
        for kind, count in self.counts.items():
            ellipsis = ", ..." if count > max_names else ""
            lines.append(f"{count:6d} {kind}: {', '.join(self.names[kind][:max_names])}{ellipsis}")
        return "\n".join(lines)


class GroundTruth(Protocol):
    """Interface of a data set of images with true masks. An evaluation iterates over it once.

    Attributes:
        settings: The settings that determine the results, for the report.
        sizes: The definition of small, medium and large objects in this data set.
        problems: The problems of the data set. They are complete after the last image.
    """

    settings: dict[str, Any]
    sizes: str
    problems: Problems

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Yield the images."""
