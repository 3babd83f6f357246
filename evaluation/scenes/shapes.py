"""Generate random shapes as polygons, and rasterise them.

A shape is a list of layers `(points, solid)`. `points` is an `(N, 2)` array of x and y in a unit frame, which goes from
about -1 to 1. If `solid` is false, the layer cuts a hole into the layers before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = np.ndarray  # float32
Points = NDArray[np.float64]
Rng = np.random.Generator
Layer = tuple[Points, bool]
Shape = list[Layer]

SUPERSAMPLING = 4  # samples per pixel in each direction


def circle(count: int = 48, radius: float = 1.0, x: float = 0.0, y: float = 0.0) -> Points:
    """Return a circle around (x, y) as `count` points, `(count, 2)`."""
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def bar(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Return an axis-aligned rectangle, `(4, 2)`."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def disc(rng: Rng) -> Shape:
    """Return a circle or an ellipse."""
    return [(circle() * [1, rng.choice([1.0, rng.uniform(0.35, 1)])], True)]


def rounded_box(rng: Rng) -> Shape:
    """Return a superellipse |x|^p + |y|^p = 1, from nearly round (p = 2.5) to nearly square."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    power = 2 / rng.uniform(2.5, 14)
    cos, sin = np.cos(angles), np.sin(angles)
    points = np.stack([np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power], axis=1)
    return [(points * [1, rng.uniform(0.3, 1)], True)]


def box(rng: Rng) -> Shape:
    """Return a rectangle or a parallelogram."""
    height, slant = rng.uniform(0.25, 1), rng.choice([0.0, rng.uniform(-0.4, 0.4)])
    return [(bar(-0.9, -height, 0.9, height) + np.array([[slant, 0], [slant, 0], [0, 0], [0, 0]]), True)]


def blob(rng: Rng) -> Shape:
    """Return a closed curve whose radius is a random Fourier series with few terms."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones(72)
    for order in range(2, rng.integers(4, 8)):
        radius += rng.normal(0, 0.45 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.2)
    points = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.5, 1)], axis=1) * radius[:, None]
    return [(points / np.abs(points).max(), True)]


def polygon(rng: Rng) -> Shape:
    """Return an irregular polygon of 3 to 8 corners."""
    count = rng.integers(3, 9)
    angles = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    radius = rng.uniform(0.55, 1, count)
    return [(np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1), True)]


def star(rng: Rng) -> Shape:
    """Return a star of 4 to 9 tips."""
    tips = rng.integers(4, 10)
    angles = np.arange(2 * tips) * np.pi / tips
    radius = np.where(np.arange(2 * tips) % 2, rng.uniform(0.4, 0.8), 1.0)
    return [(np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1), True)]


def ring(rng: Rng) -> Shape:
    """Return a disc with a round hole."""
    outline, hole = circle(), circle(radius=rng.uniform(0.3, 0.8))
    return [(outline, True), (hole, False)]


def rod(rng: Rng) -> Shape:
    """Return a long shape with a blunt or pointed end, similar to a pen, ruler or knife."""
    half_width, tip = rng.uniform(0.05, 0.16), rng.uniform(0.6, 1)
    corners = [[-1, -half_width], [tip, -half_width], [1, 0], [tip, half_width], [-1, half_width]]
    return [(np.array(corners), True)]


def cup(rng: Rng) -> Shape:
    """Return the body of a cup, with a handle that encloses a hole."""
    top, bottom, height = rng.uniform(0.45, 0.65), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.95)
    radius, thickness = rng.uniform(0.25, 0.42) * height / 0.8, rng.uniform(0.6, 0.8)
    center = (top + bottom) / 2
    body = np.concatenate([bar(-top, -height, top, -height)[:2], [[bottom, height], [-bottom, height]]])
    handle = circle(radius=radius, x=center) * [1, rng.uniform(1, 1.4)]
    hole = (handle - [center, 0]) * thickness + [center, 0]
    layers: Shape = [(handle, True), (hole, False), (body - [0.05, 0], True)]
    if rng.random() < 0.5:
        layers.append((circle() * [top, rng.uniform(0.08, 0.25)] - [0.05, height], True))
        layers.append((circle() * [bottom, 0.12] - [0.05, -height], True))
    return layers


def bottle(rng: Rng) -> Shape:
    """Return a symmetric outline with varying width, similar to a bottle or vase from the side."""
    neck, shoulder = rng.uniform(0.08, 0.2), rng.uniform(-0.5, 0.1)
    belly, foot = rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.45)
    y = np.array([-1, shoulder - rng.uniform(0.1, 0.3), shoulder + 0.15, rng.uniform(0.2, 0.6), 1])
    width = np.array([neck, neck * rng.uniform(0.8, 1.3), belly, belly * rng.uniform(0.8, 1.1), foot])
    levels = np.linspace(-1, 1, 24)
    profile = np.interp(levels, y, width)
    right_side = np.stack([profile, levels], axis=1)
    left_side = np.stack([-profile[::-1], levels[::-1]], axis=1)
    return [(np.concatenate([right_side, left_side]), True)]


def spoon(rng: Rng) -> Shape:
    """Return a handle with an oval bowl, sometimes with a hole in the bowl."""
    half_width, bowl = rng.uniform(0.04, 0.1), rng.uniform(0.2, 0.35)
    layers: Shape = [(bar(-1, -half_width, 0.5, half_width), True)]
    layers.append((circle() * [bowl * rng.uniform(1, 1.5), bowl] + [0.62, 0], True))
    if rng.random() < 0.3:
        layers.append((circle(radius=bowl * 0.55, x=0.62), False))
    return layers


def letter(rng: Rng) -> Shape:
    """Return a vertical stroke with horizontal strokes, similar to a letter or bracket."""
    thickness = rng.uniform(0.14, 0.26)
    strokes = [bar(-0.7, -0.9, -0.7 + 2 * thickness, 0.9)]
    for level in rng.choice([-0.9, 0.9 - 2 * thickness, -thickness], size=rng.integers(1, 4), replace=False):
        strokes.append(bar(-0.7, level, rng.uniform(0.3, 0.8), level + 2 * thickness))
    return [(stroke, True) for stroke in strokes]


def crescent(rng: Rng) -> Shape:
    """Return a disc without a smaller, shifted disc."""
    shift = rng.uniform(0.3, 0.7)
    return [(circle(), True), (circle(radius=rng.uniform(0.7, 0.95), x=shift), False)]


def leaf(rng: Rng) -> Shape:
    """Return a pointed oval along a bent spine."""
    t = np.linspace(-1, 1, 30)
    bend, width = rng.uniform(-0.4, 0.4), rng.uniform(0.2, 0.5)
    spine, half_width = bend * (1 - t**2), width * (1 - t**2) ** rng.uniform(0.6, 1.3)
    upper, lower = np.stack([t, spine + half_width], 1), np.stack([t, spine - half_width], 1)
    return [(np.concatenate([upper, lower[::-1]]), True)]


def gear(rng: Rng) -> Shape:
    """Return a toothed wheel, sometimes with a hole in its centre."""
    teeth = rng.integers(6, 14)
    angles = np.linspace(0, 2 * np.pi, teeth * 4, endpoint=False)
    radius = np.where((np.arange(teeth * 4) // 2) % 2, rng.uniform(0.75, 0.9), 1.0)
    layers: Shape = [(np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1), True)]
    if rng.random() < 0.6:
        layers.append((circle(radius=rng.uniform(0.15, 0.45)), False))
    return layers


def figure(rng: Rng) -> Shape:
    """Return a head, a trunk and limbs, similar to a person, animal or doll."""
    layers: Shape = [(circle(radius=rng.uniform(0.18, 0.28), y=-0.7), True)]
    trunk = blob(rng)[0][0] * [rng.uniform(0.25, 0.45), 0.5]
    layers.append((trunk, True))
    for side in (-1, 1):
        foot = np.array([side * rng.uniform(0.1, 0.5), 1.0])
        hand = np.array([side * rng.uniform(0.4, 0.9), rng.uniform(-0.6, 0.4)])
        for start, end in ((np.array([side * 0.15, 0.3]), foot), (np.array([side * 0.2, -0.35]), hand)):
            normal = np.array([end[1] - start[1], start[0] - end[0]])
            normal *= rng.uniform(0.06, 0.12) / max(1e-3, float(np.hypot(*normal)))
            layers.append((np.stack([start - normal, end - normal, end + normal, start + normal]), True))
    return layers


# A change of the order or of the weights changes the scenes of every seed.
SHAPES: tuple[tuple[Callable[[Rng], Shape], float], ...] = (
    (disc, 5), (rounded_box, 4), (box, 4), (blob, 4), (polygon, 2), (star, 1), (ring, 1), (rod, 1.5), (cup, 2),
    (bottle, 1.5), (spoon, 1), (letter, 1), (crescent, 0.7), (leaf, 1), (gear, 0.7), (figure, 1.5),
)  # fmt: skip
PROBABILITIES = np.array([weight for _, weight in SHAPES]) / sum(weight for _, weight in SHAPES)


def random_shape(rng: Rng) -> Shape:
    """Return a shape of a random kind."""
    return SHAPES[rng.choice(len(SHAPES), p=PROBABILITIES)][0](rng)


def place(shape: Shape, x: float, y: float, radius: float, angle: float, stretch: float = 1.0) -> Shape:
    """Convert a shape from its unit frame to pixel coordinates.

    Args:
        shape: The shape in its unit frame.
        x: The x coordinate of the centre in pixels.
        y: The y coordinate of the centre in pixels.
        radius: The length of a unit in pixels.
        angle: The angle of rotation in radians.
        stretch: The factor for the shape's y axis, before the rotation.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]]) * radius
    return [((points * [1, stretch]) @ matrix + [x, y], solid) for points, solid in shape]


def pixel_window(shape: Shape, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Return the window of pixels that a shape can touch.

    Args:
        shape: The shape in pixel coordinates.
        height: The height of the image.
        width: The width of the image.

    Returns:
        (top, left, bottom, right), or None if the shape is outside the image.
    """
    points = np.concatenate([points for points, solid in shape if solid])
    x_min, y_min = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    x_max, y_max = np.minimum(np.ceil(points.max(0)).astype(int) + 1, [width, height])
    return (y_min, x_min, y_max, x_max) if y_min < y_max and x_min < x_max else None


def coverage(shape: Shape, window: tuple[int, int, int, int]) -> Array:
    """Compute the share of each pixel that a shape covers.

    Args:
        shape: The shape in pixel coordinates.
        window: The window of pixels to compute, (top, left, bottom, right).

    Returns:
        `(bottom - top, right - left)` float32, 0 to 1.
    """
    y_min, x_min, y_max, x_max = window
    canvas = Image.new("L", ((x_max - x_min) * SUPERSAMPLING, (y_max - y_min) * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for points, solid in shape:
        coordinates = ((points - [x_min, y_min]) * SUPERSAMPLING).ravel().tolist()
        draw.polygon(coordinates, fill=255 if solid else 0)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float32) / 255
