"""Generate colours and surface textures. A texture is an `(H, W, 3)` float32 array with values of about 0 to 1."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

Array = np.ndarray  # float32
Rng = np.random.Generator


def random_color(rng: Rng) -> Array:
    """Return a random RGB colour, `(3,)`, 0 to 1. Greys and browns are more frequent than saturated colours."""
    kind = rng.random()
    if kind < 0.3:
        hue, saturation, value = rng.random(), rng.uniform(0, 0.12), rng.uniform(0.05, 1)
    elif kind < 0.55:
        hue, saturation, value = rng.uniform(0.02, 0.15), rng.uniform(0.15, 0.7), rng.uniform(0.15, 0.95)
    else:
        hue, saturation, value = rng.random(), rng.uniform(0.2, 1), rng.uniform(0.15, 1)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), dtype=np.float32)


def distinct_color(rng: Rng, reference: Array, min_distance: float) -> Array:
    """Return a random colour that differs from another colour.

    Args:
        rng: The random generator.
        reference: The other colour, `(3,)`.
        min_distance: The minimum difference in at least one channel.

    Returns:
        The colour, `(3,)`. After nine attempts, it can be closer to the other colour.
    """
    color = random_color(rng)
    for _ in range(8):
        if np.abs(color - reference).max() >= min_distance:
            break
        color = random_color(rng)
    return color


def enlarge(grid: Array, height: int, width: int) -> Array:
    """Enlarge a `(rows, columns)` grid to `(height, width)` with bicubic interpolation."""
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def value_noise(rng: Rng, height: int, width: int, cell: float, octaves: int = 3) -> Array:
    """Return smooth noise with mean 0 and a standard deviation of about 1.

    Args:
        rng: The random generator.
        height: The height in pixels.
        width: The width in pixels.
        cell: The size of the coarsest features in pixels.
        octaves: The number of scales that are added, from coarse to fine.

    Returns:
        `(height, width)` float32.
    """
    total = np.zeros((height, width), dtype=np.float32)
    weight, power = 1.0, 0.0
    for _ in range(octaves):
        rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
        rows, columns = min(rows, height), min(columns, width)
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        total += np.float32(weight) * enlarge(grid, height, width)
        power += weight**2
        weight, cell = weight * 0.6, max(1.5, cell / 2.2)
    return total * np.float32(1.3 / np.sqrt(power))


def rotated_coordinates(height: int, width: int, angle: float) -> tuple[Array, Array]:
    """Return the coordinates of all pixels along two axes rotated by `angle` radians, each `(height, width)`."""
    y, x = np.meshgrid(
        np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij", copy=False
    )
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def gradient(rng: Rng, height: int, width: int) -> Array:
    """Return a linear ramp from -1 to 1 in a random direction, `(height, width)`."""
    along, _ = rotated_coordinates(height, width, rng.uniform(0, 2 * np.pi))
    low, high = along.min(), along.max()
    ramp: Array = (along - low) * np.float32(2 / max(1.0, high - low)) - 1
    return ramp


def wood(rng: Rng, height: int, width: int) -> Array:
    """Return wood grain, `(height, width)`, about -1 to 1: curved stripes with fine streaks along them."""
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    along, across = rotated_coordinates(height, width, angle)
    period = rng.uniform(5, 40)
    bend = value_noise(rng, height, width, rng.uniform(40, 150), 2) * rng.uniform(0.1, 0.8) * period
    rings = np.sin((across + bend + along * rng.uniform(-0.1, 0.1)) * (2 * np.pi / period))
    line = rng.standard_normal(1024).astype(np.float32)
    streaks = line[(across + bend * 0.2).astype(np.int32) % 1024]
    grain: Array = (rings * rng.uniform(0.2, 0.7) + streaks * rng.uniform(0.1, 0.4)).astype(np.float32)
    return grain


def planks(rng: Rng, height: int, width: int) -> Array:
    """Return boards or tiles of different brightness with dark joints, `(height, width)`, about -1 to 1."""
    along, across = rotated_coordinates(height, width, rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)]))
    size = rng.uniform(20, 80)
    row = np.floor(across / size)
    column = np.floor(along / (size * rng.choice([1.0, 6.0])) + row * 0.37)
    shade = np.sin(row * 12.9 + column * 78.2) * rng.uniform(0.1, 0.6)
    joint = (across / size - row) < rng.uniform(0.01, 0.05)
    boards: Array = (shade - joint * rng.uniform(0.2, 1)).astype(np.float32)
    return boards


def cloth(rng: Rng, height: int, width: int) -> Array:
    """Return cloth with soft folds, `(height, width)`, about -1 to 1: a weave, stripes or checks."""
    along, across = rotated_coordinates(height, width, rng.uniform(0, np.pi))
    period = rng.uniform(2.5, 24)
    warp = value_noise(rng, height, width, 60, 1) * 2
    a = np.sin((along + warp) * (2 * np.pi / period))
    b = np.sin((across + warp) * (2 * np.pi / period / rng.uniform(0.6, 1.5)))
    kind = rng.integers(3)
    weave = a * b if kind == 0 else np.sign(a) * 0.5 + np.sign(b) * 0.5 if kind == 1 else np.tanh(a * 3)
    folds = value_noise(rng, height, width, rng.uniform(40, 120), 2)
    fabric: Array = (weave * rng.uniform(0.1, 0.5) + folds * rng.uniform(0.1, 0.5)).astype(np.float32)
    return fabric


def speckle(rng: Rng, height: int, width: int) -> Array:
    """Return fine grain, `(height, width)`, about -1 to 1, similar to stone, sand or paper."""
    return value_noise(rng, height, width, rng.uniform(1.5, 6), 2) * np.float32(rng.uniform(0.2, 0.6))


def clouds(rng: Rng, height: int, width: int) -> Array:
    """Return coarse patches of different brightness, `(height, width)`, about -1 to 1."""
    return value_noise(rng, height, width, rng.uniform(10, 120), 4) * np.float32(0.6)


def plain(rng: Rng, height: int, width: int) -> Array:
    """Return an almost uniform surface, `(height, width)`."""
    return value_noise(rng, height, width, 100, 2) * np.float32(0.05)


PATTERNS = (plain, clouds, speckle, wood, cloth, planks)


def surface(rng: Rng, height: int, width: int, base: Array, plainness: float = 0.4) -> Array:
    """Return a random textured surface.

    Args:
        rng: The random generator.
        height: The height in pixels.
        width: The width in pixels.
        base: The mean RGB colour, `(3,)`, 0 to 1.
        plainness: The probability of a surface without a pattern.

    Returns:
        `(height, width, 3)` float32, about 0 to 1.
    """
    probabilities = np.array([plainness] + [(1 - plainness) * share for share in (0.25, 0.3, 0.2, 0.15, 0.1)])
    pattern = PATTERNS[rng.choice(len(PATTERNS), p=probabilities)](rng, height, width)
    strength = rng.uniform(0.04, 0.3)
    tint = base * rng.uniform(0.6, 1.2) + (random_color(rng) - base) * rng.uniform(0, 0.5)
    mix = pattern * strength
    if rng.random() < 0.3:
        mix = mix + gradient(rng, height, width) * rng.uniform(0.05, 0.3)
    textured: Array = base + mix[..., None] * (tint + 0.15)
    return textured
