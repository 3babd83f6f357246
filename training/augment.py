"""Crops, colours and camera errors of training images."""

from __future__ import annotations

import io
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Rng = np.random.Generator
Bytes = NDArray[np.uint8]
Label = TypeVar("Label", np.uint8, np.int32)
Region = tuple[slice, slice]  # rows and columns

SCENE_TURNS = (0.6, 0.1, 0.2, 0.1)  # probabilities of 0, 90, 180 and 270 degrees
PHOTOGRAPH_TURNS = (0.88, 0.04, 0.04, 0.04)  # photographs have a top: light and shadows come from there


def random_region(rng: Rng, shape: tuple[int, ...], part: tuple[float, float]) -> Region:
    """Return a random rectangle of an image.

    Args:
        rng: The random generator.
        shape: The height and width of the image.
        part: The minimum and maximum side of the rectangle, as shares of the image's longest edge.
    """
    longest = rng.uniform(*part) * max(shape)
    edges = np.array([longest, longest / rng.choice([1.0, 4 / 3, 3 / 2, 16 / 9])])
    edges = edges if rng.random() < 0.3 else edges[::-1]
    height, width = np.minimum(np.maximum(edges.astype(int), 24), shape)
    y, x = rng.integers(0, shape[0] - height + 1), rng.integers(0, shape[1] - width + 1)
    return slice(int(y), int(y + height)), slice(int(x), int(x + width))


def region_around(rng: Rng, shape: tuple[int, ...], box: NDArray[np.float64]) -> Region:
    """Return a rectangle that shows an object large: its box with a random margin, at least 48 pixels wide and high.

    Args:
        rng: The random generator.
        shape: The height and width of the image.
        box: x1, y1, x2, y2 of the object in pixels.
    """
    sides = box[2:] - box[:2]
    # A thin object gets a wider margin across, so that the rectangle is at most three times as long as wide.
    least = np.maximum(0, max(48.0, float(sides.max()) / 3) - sides)
    margins = np.maximum(sides * rng.uniform(0.1, 1.2, 2), least)
    start = np.maximum(0, box[:2] - margins * rng.uniform(0, 1, 2)).astype(int)
    end = np.minimum(shape[1::-1], start + sides + margins).astype(int)
    return slice(int(start[1]), int(end[1])), slice(int(start[0]), int(end[0]))


def resize_and_turn(
    rng: Rng, image: Bytes, labels: NDArray[Label], side: int, stretched: bool, turns: tuple[float, ...] = SCENE_TURNS
) -> tuple[Bytes, NDArray[Label]]:
    """Resize, rotate and mirror an image and its labels.

    Args:
        rng: The random generator.
        image: (height, width, 3).
        labels: (height, width).
        side: The longest edge of the result in pixels; both edges if `stretched`.
        stretched: Whether the result is a square.
        turns: The probabilities of no, one, two and three turns by 90 degrees.
    """
    scale = side / max(labels.shape)
    size = (max(8, round(labels.shape[1] * scale)), max(8, round(labels.shape[0] * scale)))
    size = (side, side) if stretched else size
    if size != labels.shape[::-1]:
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR))
        labels = np.asarray(Image.fromarray(np.ascontiguousarray(labels)).resize(size, Image.Resampling.NEAREST))
    count = int(rng.choice([0, 1, 2, 3], p=turns))
    image, labels = np.rot90(image, count), np.rot90(labels, count)
    return (image[:, ::-1], labels[:, ::-1]) if rng.random() < 0.5 else (image, labels)


def recolor(rng: Rng, image: Bytes) -> Bytes:
    """Simulate another light and another camera on an image (height, width, 3)."""
    levels = np.linspace(0, 1, 256)
    kind = rng.random()
    if kind < 0.12:
        grey = (image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, axis=2)
    elif kind < 0.25:
        image = image[..., rng.permutation(3)]
    gamma = np.exp(rng.normal(0, 0.25))
    contrast, lift = np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.08)
    channels = []
    for channel in range(3):
        curve = (levels**gamma - 0.5) * contrast * np.exp(rng.normal(0, 0.06)) + 0.5 + lift + rng.normal(0, 0.03)
        curve = 1 - curve if kind > 0.97 else curve
        channels.append((np.clip(curve, 0, 1) * 255).astype(np.uint8)[image[..., channel]])
    image = np.stack(channels, axis=2)
    if rng.random() < 0.12:
        blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3))
        image = np.asarray(Image.fromarray(image).filter(blur))
    if rng.random() < 0.15:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2, 12))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return image


def degrade(rng: Rng, image: Bytes) -> Bytes:
    """Simulate a poor file of a photograph (height, width, 3): fewer pixels, and JPEG compression."""
    photo = Image.fromarray(np.ascontiguousarray(image))
    if rng.random() < 0.2:
        share = rng.uniform(0.35, 0.9)
        small = photo.resize((max(8, round(photo.width * share)), max(8, round(photo.height * share))))
        photo = small.resize(photo.size, Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        file = io.BytesIO()
        photo.save(file, "jpeg", quality=int(rng.integers(25, 90)))
        photo = Image.open(file)
    return np.asarray(photo)
