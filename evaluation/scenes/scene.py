"""Generate scenes: an image, and the object that is visible at each pixel.

A scene depends only on its seed and its index, so different seeds give different scenes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sam_endpoint.evaluation.scenes import layouts, textures
from sam_endpoint.evaluation.scenes.canvas import Canvas

Array = np.ndarray  # float32
Rng = np.random.Generator

LONGEST_EDGE = 256
MIN_AREA = 40  # visible pixels of the smallest object that training and evaluation use
RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0)


@dataclass
class Scene:
    """A synthetic image with exact labels.

    Attributes:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)` uint8, the label of the visible part at each pixel; 0 for the background.
        owners: `(256,)` uint8, the label of the object that each part belongs to. An object is a part of itself.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    owners: NDArray[np.uint8]

    def object_labels(self) -> NDArray[np.uint8]:
        """Return the label of the visible object at each pixel, `(H, W)` uint8. Parts count as their object."""
        return self.owners[self.labels]


def draw_scene(seed: int, index: int, longest_edge: int = LONGEST_EDGE) -> Scene:
    """Generate a scene.

    Args:
        seed: The seed of an endless sequence of scenes.
        index: The number of the scene in the sequence.
        longest_edge: The longest edge of the image in pixels.

    Example:
        >>> draw_scene(seed=2, index=0).image.shape
        (192, 256, 3)
    """
    rng = np.random.default_rng([seed, index])
    shorter = round(longest_edge / rng.choice(RATIOS, p=[0.25, 0.3, 0.25, 0.15, 0.05]))
    height, width = (shorter, longest_edge) if rng.random() < 0.7 else (longest_edge, shorter)
    canvas = Canvas(rng, height, width, textures.random_color(rng))
    _draw_backdrop(rng, canvas)
    layouts.LAYOUTS[rng.choice(len(layouts.LAYOUTS), p=layouts.PROBABILITIES)](rng, canvas)
    return Scene(photograph(rng, canvas.image), canvas.labels, canvas.owners)


def _draw_backdrop(rng: Rng, canvas: Canvas) -> None:
    """Add, each with some probability, a wall behind the table, uneven light, and shadows from outside the image."""
    height, width = canvas.height, canvas.width
    _, across = textures.rotated_coordinates(height, width, rng.normal(0, 0.15))
    if rng.random() < 0.3:
        edge = across - np.quantile(across, rng.uniform(0.1, 0.6))
        side = np.clip(edge * rng.choice([1.0, -1.0]) / rng.uniform(0.5, 6) + 0.5, 0, 1)
        wall = textures.surface(rng, height, width, textures.random_color(rng), plainness=0.6)
        canvas.image += (wall - canvas.image) * side[..., None]
    if rng.random() < 0.5:
        falloff = textures.gradient(rng, height, width) * rng.uniform(0.05, 0.45)
        canvas.image *= (1 + falloff)[..., None]
    if rng.random() < 0.3:
        field = textures.value_noise(rng, height, width, rng.uniform(60, 200), 2)
        darkness = np.clip((field - rng.uniform(0, 1)) / rng.uniform(0.1, 1), 0, 1) * rng.uniform(0.1, 0.4)
        canvas.image *= (1 - darkness)[..., None]


def photograph(rng: Rng, image: Array) -> NDArray[np.uint8]:
    """Simulate a camera: uneven illumination, exposure, monochrome images, defocus, grain and compression.

    Args:
        rng: The random generator.
        image: `(H, W, 3)` float32 RGB, about 0 to 1.

    Returns:
        `(H, W, 3)` uint8 RGB.
    """
    height, width = image.shape[:2]
    if rng.random() < 0.4:
        lamp = 1 + textures.value_noise(rng, height, width, 200, 1) * rng.uniform(0.03, 0.15)
        image = image * lamp[..., None]
    image = np.clip(image * rng.uniform(0.75, 1.15) + rng.uniform(-0.05, 0.1), 0, 1)
    if rng.random() < 0.25:
        image = np.repeat((image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None], 3, axis=2)
    photo = Image.fromarray((image * 255).astype(np.uint8))
    if rng.random() < 0.5:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.4:
        grain = rng.standard_normal((height, width, 3 if rng.random() < 0.5 else 1), dtype=np.float32)
        noisy = np.asarray(photo, dtype=np.float32) + grain * np.float32(rng.uniform(1, 12))
        photo = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        packed = io.BytesIO()
        photo.save(packed, "jpeg", quality=int(rng.integers(30, 90)))
        photo = Image.open(packed)
    return np.asarray(photo)
