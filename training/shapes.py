"""Outlines of things, as polygons in a unit frame, and their rasterisation.

A shape is a list of layers `(points, solid)`: `points` (n, 2) as x, y within about -1 to 1; a layer that is not solid
cuts a hole into the layers before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = np.ndarray  # float32
Rng = np.random.Generator
Layer = tuple[NDArray[np.float64], bool]
Shape = list[Layer]

SUPERSAMPLING = 4


def circle(count: int = 48, radius: float = 1.0, x: float = 0.0, y: float = 0.0) -> NDArray[np.float64]:
    """A circle (count, 2) around (x, y)."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def bar(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float64]:
    """An upright rectangle (4, 2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def disc(rng: Rng) -> Shape:
    return [(circle() * [1, rng.choice([1.0, rng.uniform(0.35, 1)])], True)]


def rounded_box(rng: Rng) -> Shape:
    """A superellipse |x|^p + |y|^p = 1, from nearly round (p = 2.5) to nearly square."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    power = 2 / rng.uniform(2.5, 14)
    cos, sin = np.cos(turn), np.sin(turn)
    points = np.stack([np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power], axis=1)
    return [(points * [1, rng.uniform(0.3, 1)], True)]


def box(rng: Rng) -> Shape:
    height, slant = rng.uniform(0.25, 1), rng.choice([0.0, rng.uniform(-0.4, 0.4)])
    return [(bar(-0.9, -height, 0.9, height) + np.array([[slant, 0], [slant, 0], [0, 0], [0, 0]]), True)]


def blob(rng: Rng) -> Shape:
    """A closed curve whose radius is a short random Fourier series."""
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones(72)
    for order in range(2, rng.integers(4, 8)):
        radius += rng.normal(0, 0.45 / order) * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.2)
    points = np.stack([np.cos(turn), np.sin(turn) * rng.uniform(0.5, 1)], axis=1) * radius[:, None]
    return [(points / np.abs(points).max(), True)]


def polygon(rng: Rng) -> Shape:
    count = rng.integers(3, 9)
    turn = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radius = rng.uniform(0.55, 1, count)
    return [(np.stack([np.cos(turn) * radius, np.sin(turn) * radius], axis=1), True)]


def star(rng: Rng) -> Shape:
    tips = rng.integers(4, 10)
    turn = np.arange(2 * tips) * np.pi / tips
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.4, 0.8), 1.0)
    return [(np.stack([np.cos(turn) * radius, np.sin(turn) * radius], axis=1), True)]


def ring(rng: Rng) -> Shape:
    outer, hole = circle(), circle(radius=rng.uniform(0.3, 0.8))
    return [(outer, True), (hole, False)]


def rod(rng: Rng) -> Shape:
    """A pen, ruler or knife: long, one end sometimes pointed."""
    half, tip = rng.uniform(0.05, 0.16), rng.uniform(0.6, 1)
    return [(np.array([[-1, -half], [tip, -half], [1, 0], [tip, half], [-1, half]]), True)]


def cup(rng: Rng) -> Shape:
    """A body with a handle that has a hole."""
    top, bottom, height = rng.uniform(0.45, 0.65), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.95)
    radius, thick = rng.uniform(0.25, 0.42) * height / 0.8, rng.uniform(0.6, 0.8)
    centre = (top + bottom) / 2
    body = np.concatenate([bar(-top, -height, top, -height)[:2], [[bottom, height], [-bottom, height]]])
    handle = circle(radius=radius, x=centre) * [1, rng.uniform(1, 1.4)]
    hole = (handle - [centre, 0]) * thick + [centre, 0]
    layers: Shape = [(handle, True), (hole, False), (body - [0.05, 0], True)]
    if rng.random() < 0.5:
        layers.append((circle() * [top, rng.uniform(0.08, 0.25)] - [0.05, height], True))
        layers.append((circle() * [bottom, 0.12] - [0.05, -height], True))
    return layers


def bottle(rng: Rng) -> Shape:
    """A turned body: a profile of widths, mirrored."""
    neck, shoulder = rng.uniform(0.08, 0.2), rng.uniform(-0.5, 0.1)
    belly, foot = rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.45)
    y = np.array([-1, shoulder - rng.uniform(0.1, 0.3), shoulder + 0.15, rng.uniform(0.2, 0.6), 1])
    width = np.array([neck, neck * rng.uniform(0.8, 1.3), belly, belly * rng.uniform(0.8, 1.1), foot])
    fine = np.linspace(-1, 1, 24)
    profile = np.interp(fine, y, width)
    right, left = np.stack([profile, fine], axis=1), np.stack([-profile[::-1], fine[::-1]], axis=1)
    return [(np.concatenate([right, left]), True)]


def spoon(rng: Rng) -> Shape:
    half, bowl = rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.35)
    layers: Shape = [(bar(-1, -half, 0.5, half), True)]
    layers.append((circle() * [bowl * rng.uniform(1, 1.5), bowl] + [0.62, 0], True))
    if rng.random() < 0.3:
        layers.append((circle(radius=bowl * 0.55, x=0.62), False))
    return layers


def letter(rng: Rng) -> Shape:
    """A union of strokes on a 3 x 3 frame, as letters and brackets are."""
    thick = rng.uniform(0.14, 0.26)
    strokes = [bar(-0.7, -0.9, -0.7 + 2 * thick, 0.9)]
    for level in rng.choice([-0.9, 0.9 - 2 * thick, -thick], size=rng.integers(1, 4), replace=False):
        strokes.append(bar(-0.7, level, rng.uniform(0.3, 0.8), level + 2 * thick))
    return [(stroke, True) for stroke in strokes]


def crescent(rng: Rng) -> Shape:
    shift = rng.uniform(0.3, 0.7)
    return [(circle(), True), (circle(radius=rng.uniform(0.7, 0.95), x=shift), False)]


def leaf(rng: Rng) -> Shape:
    t = np.linspace(-1, 1, 30)
    bend, width = rng.uniform(-0.4, 0.4), rng.uniform(0.2, 0.5)
    spine, half = bend * (1 - t**2), width * (1 - t**2) ** rng.uniform(0.6, 1.3)
    return [(np.concatenate([np.stack([t, spine + half], 1), np.stack([t, spine - half], 1)[::-1]]), True)]


def gear(rng: Rng) -> Shape:
    teeth = rng.integers(6, 14)
    turn = np.linspace(0, 2 * np.pi, teeth * 4, endpoint=False)
    radius = np.where((np.arange(teeth * 4) // 2) % 2, rng.uniform(0.75, 0.9), 1.0)
    layers: Shape = [(np.stack([np.cos(turn) * radius, np.sin(turn) * radius], axis=1), True)]
    if rng.random() < 0.6:
        layers.append((circle(radius=rng.uniform(0.15, 0.45)), False))
    return layers


def figure(rng: Rng) -> Shape:
    """A head on a trunk with limbs: people, animals and dolls from afar."""
    layers: Shape = [(circle(radius=rng.uniform(0.18, 0.28), y=-0.7), True)]
    trunk = blob(rng)[0][0] * [rng.uniform(0.25, 0.45), 0.5]
    layers.append((trunk, True))
    for side in (-1, 1):
        foot = np.array([side * rng.uniform(0.1, 0.5), 1.0])
        hand = np.array([side * rng.uniform(0.4, 0.9), rng.uniform(-0.6, 0.4)])
        for start, end in ((np.array([side * 0.15, 0.3]), foot), (np.array([side * 0.2, -0.35]), hand)):
            across = np.array([end[1] - start[1], start[0] - end[0]])
            across *= rng.uniform(0.06, 0.12) / max(1e-3, float(np.hypot(*across)))
            layers.append((np.stack([start - across, end - across, end + across, start + across]), True))
    return layers


SHAPES: tuple[tuple[Callable[[Rng], Shape], float], ...] = (
    (disc, 5), (rounded_box, 4), (box, 4), (blob, 4), (polygon, 2), (star, 1), (ring, 1), (rod, 1.5), (cup, 2),
    (bottle, 1.5), (spoon, 1), (letter, 1), (crescent, 0.7), (leaf, 1), (gear, 0.7), (figure, 1.5),
)  # fmt: skip
ODDS = np.array([share for _, share in SHAPES]) / sum(share for _, share in SHAPES)


def any_shape(rng: Rng) -> Shape:
    return SHAPES[rng.choice(len(SHAPES), p=ODDS)][0](rng)


def placed(shape: Shape, x: float, y: float, radius: float, angle: float, stretch: float = 1.0) -> Shape:
    """The shape turned by `angle`, scaled to `radius` pixels and moved to pixel (x, y)."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]]) * radius
    return [((points * [1, stretch]) @ turn + [x, y], solid) for points, solid in shape]


def window(shape: Shape, height: int, width: int) -> tuple[int, int, int, int] | None:
    """The pixels (top, left, bottom, right) a placed shape can touch, or None if it lies outside the image."""
    points = np.concatenate([points for points, solid in shape if solid])
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, [width, height])
    return (top, left, bottom, right) if top < bottom and left < right else None


def coverage(shape: Shape, top: int, left: int, bottom: int, right: int) -> Array:
    """The share of each pixel of the window that the placed shape covers, (bottom - top, right - left), 0 to 1."""
    factor = SUPERSAMPLING
    canvas = Image.new("L", ((right - left) * factor, (bottom - top) * factor))
    draw = ImageDraw.Draw(canvas)
    for points, solid in shape:
        flat = ((points - [left, top]) * factor).ravel().tolist()
        draw.polygon(flat, fill=255 if solid else 0)
    return np.asarray(canvas.reduce(factor), dtype=np.float32) / 255
