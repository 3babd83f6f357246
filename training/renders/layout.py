"""Place things on the plane z = 0, and turn the labels of a rendered picture into COCO annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_endpoint.training.renders.meshes import Points, Rng
from sam_endpoint.training.renders.things import Thing, random_thing

LYING = 0.2  # the share of things that lie on their side
STACKED = 0.12  # the share of things with copies of themselves on top
SMALLEST = 12  # pixels, the area of the smallest mask


def arrange(rng: Rng, count: int) -> tuple[list[Thing], float]:
    """Place random things, so that the circles around them do not overlap.

    Args:
        rng: The random generator.
        count: The number of places. Things that find no place are left out, and stacks have up to four things.

    Returns:
        The things, and the radius of a circle around all of them.
    """
    room = 0.8 * np.sqrt(count)  # things of radius 0.2 to 1 fill about half of it
    placed: list[Thing] = []
    circles: list[tuple[float, float, float]] = []
    for _ in range(count):
        radius = float(rng.uniform(0.3, 1.0) ** 1.5)
        for _ in range(20):
            x, y = rng.uniform(-1, 1, 2) * room
            if all(np.hypot(x - a, y - b) > 0.95 * (radius + r) for a, b, r in circles):
                circles.append((float(x), float(y), radius))
                thing = random_thing(rng)
                if rng.random() < STACKED:
                    floor = 0.0
                    for _ in range(int(rng.integers(2, 5))):
                        placed.append(_place(rng, thing, np.array([x, y, floor]), radius))
                        floor = max(part.points[:, 2].max() for part in placed[-1])
                else:
                    placed.append(_place(rng, thing, np.array([x, y, 0]), radius, rng.random() < LYING))
                break
    return placed, max(float(np.hypot(x, y)) + r for x, y, r in circles)


def _place(rng: Rng, thing: Thing, place: Points, radius: float, lying: bool = False) -> Thing:
    """Scale a thing to a circle, turn it, and put it on a place (x, y, z). A flat thing does not lie on its side."""
    everything = np.concatenate([part.points for part in thing])
    turn = np.eye(3)
    if lying and np.ptp(everything[:, 2]) > 0.4:
        turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ turn
    turned = everything @ turn.T
    low, high = turned.min(0), turned.max(0)
    middle = np.array([*(low + high)[:2] / 2, low[2]])
    scale = radius / max(np.linalg.norm((turned - middle)[:, :2], axis=1).max(), 0.45 * (high - low)[2])
    return [part._replace(points=(part.points @ turn.T - middle) * scale + place) for part in thing]


def coco_annotations(labels: NDArray[np.int64], owners: list[int]) -> list[dict[str, Any]]:
    """Return COCO annotations of what is visible of each thing, and of each of its pieces if it has several.

    Args:
        labels: (height, width), the number of the piece that is visible at each pixel, from 1 on; 0 for the background.
        owners: The thing that each piece belongs to.
    """
    owner_of = np.array([-1, *owners])
    masks = [owner_of[labels] == thing for thing in sorted(set(owners))]
    masks += [labels == piece for piece, owner in enumerate(owners, 1) if owners.count(owner) > 1]
    return [
        {"segmentation": {"size": list(mask.shape), "counts": _counts(mask)}, "area": int(mask.sum()), "iscrowd": 0}
        for mask in masks
        if mask.sum() >= SMALLEST
    ]


def _counts(mask: NDArray[np.bool_]) -> list[int]:
    """Return COCO's uncompressed run lengths, which go down the columns and begin with zeros."""
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    return [int(count) for count in np.diff([0, *changes, mask.size])]
