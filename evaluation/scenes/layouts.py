"""Arrange objects on a canvas: spread on a table, in clutter, in rows, or as a portrait of one large object."""

from __future__ import annotations

import numpy as np

from sam_endpoint.evaluation.scenes import shapes, textures
from sam_endpoint.evaluation.scenes.canvas import Canvas, Finish, coin_finish, random_finish

Rng = np.random.Generator


def table(rng: Rng, canvas: Canvas) -> None:
    """Place a few separate objects on a surface."""
    canvas.shadow_depth = rng.uniform(0.1, 0.65)
    for x, y, size in sample_circles(rng, canvas, int(rng.integers(1, 8)), 0.07, 0.3, 0.95):
        base = textures.distinct_color(rng, canvas.mean_color(), 0.2)
        canvas.add_object(shapes.random_shape(rng), x, y, size, random_finish(rng, base), rng.random() < 0.85)


def clutter(rng: Rng, canvas: Canvas) -> None:
    """Place many objects that overlap."""
    shadows = rng.random() < 0.6
    longest = max(canvas.height, canvas.width)
    for _ in range(rng.integers(6, 22)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        size = longest * np.exp(rng.uniform(np.log(0.04), np.log(0.25)))
        row, column = min(int(y), canvas.height - 1), min(int(x), canvas.width - 1)
        base = textures.distinct_color(rng, canvas.image[row, column], 0.2)
        canvas.add_object(shapes.random_shape(rng), x, y, size, random_finish(rng, base), shadows)


def rows(rng: Rng, canvas: Canvas) -> None:
    """Place small objects of one kind in irregular rows, similar to coins, beans, screws, buttons or pills."""
    longest = max(canvas.height, canvas.width)
    size = longest * np.exp(rng.uniform(np.log(0.025), np.log(0.08)))
    pitch = size * rng.uniform(2.2, 3.6)
    coins = rng.random() < 0.5
    shape = shapes.disc(rng) if coins else shapes.random_shape(rng)
    base = textures.distinct_color(rng, canvas.mean_color(), 0.15)
    finish = coin_finish(rng, base) if coins else random_finish(rng, base)
    mixed, looseness, spread = rng.random() < 0.3, rng.uniform(0, 0.25), rng.uniform(0, 0.25)
    for y in np.arange(pitch * 0.6, canvas.height, pitch):
        for x in np.arange(pitch * 0.6, canvas.width, pitch):
            if rng.random() < 0.12:
                continue
            dx, dy = rng.normal(0, looseness, 2) * size
            tone = np.clip(base * rng.uniform(0.75, 1.25) + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
            varied = Finish(tone, finish.relief, finish.depth, finish.gloss, finish.plainness, finish.decor)
            if mixed:
                shape = shapes.random_shape(rng)
                varied = random_finish(rng, textures.distinct_color(rng, canvas.mean_color(), 0.2))
            canvas.add_object(shape, x + dx, y + dy, size * np.exp(rng.normal(0, spread)), varied, True)


def portrait(rng: Rng, canvas: Canvas) -> None:
    """Place one object that fills much of the image and can extend beyond its edge, and a few small objects."""
    base = textures.distinct_color(rng, canvas.mean_color(), 0.2)
    x, y = np.array([canvas.width, canvas.height]) * rng.uniform(0.25, 0.75, 2)
    size = max(canvas.height, canvas.width) * rng.uniform(0.25, 0.55)
    canvas.add_object(shapes.random_shape(rng), x, y, size, random_finish(rng, base), rng.random() < 0.7)
    for x, y, size in sample_circles(rng, canvas, int(rng.integers(0, 6)), 0.03, 0.12, 0.5):
        base = textures.distinct_color(rng, canvas.mean_color(), 0.2)
        canvas.add_object(shapes.random_shape(rng), x, y, size, random_finish(rng, base), rng.random() < 0.7)


def sample_circles(
    rng: Rng, canvas: Canvas, count: int, min_radius: float, max_radius: float, gap: float
) -> list[tuple[float, ...]]:
    """Sample circles with a minimum distance between them.

    Args:
        rng: The random generator.
        canvas: The canvas.
        count: The maximum number of circles.
        min_radius: The smallest radius, as a share of the canvas's longest edge.
        max_radius: The largest radius, as a share of the canvas's longest edge.
        gap: The minimum distance between two centres, as a share of the sum of their radii.

    Returns:
        x, y and radius of each circle in pixels.
    """
    circles: list[tuple[float, ...]] = []
    longest = max(canvas.height, canvas.width)
    for _ in range(count * 4):
        size = longest * np.exp(rng.uniform(np.log(min_radius), np.log(max_radius)))
        x, y = rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.05, 0.95) * canvas.height
        if all(np.hypot(x - a, y - b) > gap * (size + c) for a, b, c in circles):
            circles.append((x, y, size))
        if len(circles) == count:
            break
    return circles


# A change of the order or of the weights changes the scenes of every seed.
LAYOUTS = (table, clutter, rows, portrait)
PROBABILITIES = (0.42, 0.2, 0.23, 0.15)
