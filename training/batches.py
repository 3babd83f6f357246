"""Batches of augmented scenes with the masks to find in them; batch `step` depends on the seed and the step only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch.utils.data import Dataset

from training.cache import SceneCache
from training.ground_truth import SMALLEST_AREA, box_of
from training.scenes import LONGEST_EDGE

Rng = np.random.Generator
Bytes = NDArray[np.uint8]

PART_SHARE = 0.15  # of the masks of things that have parts
RECOLOURED_SHARE = 0.5  # of images; scenes differ in light and camera as they are
PART = (0.35, 0.9)  # of a scene, shares of its longest edge
CLOSE_PART = (0.35, 0.65)  # half in the middle, as a window is half of the input


class Batch(NamedTuple):
    """`images` (images, side, side, 3) uint8, padded right and bottom; `sizes` (images, 2) height and width within;
    `masks` (images, masks, side / 2, side / 2) uint8, the covered share of each cell times 255; `boxes`
    (images, masks, 4) float32, x1, y1, x2, y2 around them in pixels; `corner` (2,) the window's first row and column
    in grid cells."""

    images: Bytes
    sizes: NDArray[np.int64]
    masks: Bytes
    boxes: NDArray[np.float32]
    corner: NDArray[np.int64]


class Batches(Dataset[Batch]):
    """Batch number `step`: for `windowed` steps windows of half the side, twice `images` of them, afterwards `images`
    at the full side every `whole_every` steps, and windows in between; `stretched`: the image fills the square, instead
    of being padded to it; `close`: windows show about a quarter of a scene, as large as the whole shows it."""

    def __init__(
        self,
        cache: SceneCache,
        seed: int,
        images: int,
        masks: int,
        side: int,
        windowed: int,
        whole_every: int = 1,
        stretched: bool = False,
        close: bool = False,
    ) -> None:
        self.cache, self.seed, self.images, self.masks = cache, seed, images, masks
        self.side, self.windowed, self.whole_every, self.stretched = side, windowed, whole_every, stretched
        self.close = close

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        whole = step >= self.windowed and (step - self.windowed) % self.whole_every == 0
        side = self.side if whole else self.side // 2
        samples = [self.sample(rng, side, whole) for _ in range(self.images * (1 if whole else 2))]
        free = 1 if whole else self.side // 8 - side // 8 + 1
        # Even, so that a window of SAM 2's first stage, two cells wide, begins where it does in the whole.
        corner = rng.integers(0, (free + 1) // 2, 2) * 2
        images, sizes, masks, boxes = (np.stack(field) for field in zip(*samples, strict=True))
        return Batch(images, sizes, masks, boxes, corner)

    def sample(self, rng: Rng, side: int, whole: bool) -> tuple[np.ndarray, ...]:
        """One image with its masks and boxes, as in `Batch`; scenes in which nothing large enough shows are passed."""
        while True:
            scene = self.cache[int(rng.integers(self.cache.count))]
            keep, part = (0.6, PART) if whole else (0.0, CLOSE_PART) if self.close else (0.3, PART)
            image, labels = cropped(rng, scene.image, scene.labels, side, keep, part, self.stretched)
            smallest = SMALLEST_AREA * (self.side / LONGEST_EDGE) ** 2 * (1 if whole else 0.6)
            masks = chosen(rng, labels, scene.owners, self.masks, smallest)
            if masks is not None:
                break
        height, width = labels.shape
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        canvas[:height, :width] = recoloured(rng, image) if rng.random() < RECOLOURED_SHARE else image
        padded = np.zeros((self.masks, side, side), dtype=np.float32)
        padded[:, :height, :width] = masks
        cells = padded.reshape(self.masks, side // 2, 2, side // 2, 2).mean((2, 4))
        boxes = np.stack([box_of(mask) for mask in masks])
        return canvas, np.array([height, width]), (cells * 255).astype(np.uint8), boxes


def cropped(
    rng: Rng, image: Bytes, labels: Bytes, side: int, keep: float, part: tuple[float, float], stretched: bool
) -> tuple[Bytes, Bytes]:
    """The scene, or with probability 1 - `keep` a part of it, turned or mirrored, its longest edge (or both) `side`;
    `part`: the shares of the longest edge between which a part's lies."""
    if rng.random() > keep:
        longest = rng.uniform(*part) * max(labels.shape)
        shape = np.array([longest, longest / rng.choice([1.0, 4 / 3, 3 / 2, 16 / 9])])
        shape = shape if rng.random() < 0.3 else shape[::-1]
        height, width = np.minimum(np.maximum(shape.astype(int), 24), labels.shape)
        top, left = rng.integers(0, labels.shape[0] - height + 1), rng.integers(0, labels.shape[1] - width + 1)
        image, labels = (field[top : top + height, left : left + width] for field in (image, labels))
    scale = side / max(labels.shape)
    size = (max(8, round(labels.shape[1] * scale)), max(8, round(labels.shape[0] * scale)))
    size = (side, side) if stretched else size
    if size != labels.shape[::-1]:
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR))
        labels = np.asarray(Image.fromarray(np.ascontiguousarray(labels)).resize(size, Image.Resampling.NEAREST))
    turns = int(rng.choice([0, 1, 2, 3], p=[0.6, 0.1, 0.2, 0.1]))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    return (image[:, ::-1], labels[:, ::-1]) if rng.random() < 0.5 else (image, labels)


def chosen(rng: Rng, labels: Bytes, owners: Bytes, count: int, smallest: float) -> NDArray[np.bool_] | None:
    """`count` masks (count, height, width) of things, each once before any comes twice; now and then of a part instead.

    A thing is asked for far more often than any of its parts, so that a click means the thing where it may mean both.
    """
    parts = np.bincount(labels.ravel(), minlength=256)
    things = np.bincount(owners, weights=parts, minlength=256)
    things[0] = parts[0] = 0
    whole = rng.permutation(np.flatnonzero(things >= smallest))
    if not len(whole):
        return None
    inner = np.flatnonzero((parts >= smallest) & ((owners != np.arange(256)) | (parts < things)))
    owner_of = owners[labels]
    masks = []
    for index in range(count):
        thing = whole[index % len(whole)]
        own = inner[owners[inner] == thing]
        if len(own) and rng.random() < PART_SHARE:
            masks.append(labels == rng.choice(own))
        else:
            masks.append(owner_of == thing)
    return np.stack(masks)


def recoloured(rng: Rng, image: Bytes) -> Bytes:
    """The image (height, width, 3) under other light, by another camera."""
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
