"""Batches of augmented scenes with target masks. A batch depends only on the seed and the step.

A whole input is an image of the size that the model takes. A window is an image of half that side. The model encodes a
window as if it were cut out of a whole input, at a quarter of the cost.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch.utils.data import Dataset

from sam_endpoint.evaluation.geometry import bounding_box
from sam_endpoint.evaluation.scenes import LONGEST_EDGE, MIN_AREA
from sam_endpoint.training.cache import SceneCache

Rng = np.random.Generator
Bytes = NDArray[np.uint8]

# If an object has parts, the probability that a mask shows a part instead of the whole object.
PART_SHARE = 0.15
# The share of images that `recolor` changes. Not all, because scenes already differ in light and camera.
RECOLORED_SHARE = 0.5
# The side of a crop as a share of the scene's longest edge, minimum and maximum.
PART = (0.35, 0.9)
CLOSE_PART = (0.35, 0.65)  # about a half, because the side of a window is half the side of a whole input


class Batch(NamedTuple):
    """Images with target masks.

    Attributes:
        images: (images, side, side, 3) uint8, padded at the right and the bottom.
        sizes: (images, 2), the height and width inside the padding.
        masks: (images, masks, side / 2, side / 2) uint8. Each number is the share of 2 x 2 pixels that the mask covers,
            times 255.
        boxes: (images, masks, 4) float32, the bounding boxes of the masks, x1, y1, x2, y2 in pixels.
        corner: (2,), the first row and column of a window in the embedding grid of a whole input; zeros for whole
            inputs.
    """

    images: Bytes
    sizes: NDArray[np.int64]
    masks: Bytes
    boxes: NDArray[np.float32]
    corner: NDArray[np.int64]


class Batches(Dataset[Batch]):
    """The batches of a training, by step.

    A batch has either `images` whole inputs, or twice as many windows. The first `windowed` steps have windows. Of the
    later steps, every `whole_every`-th has whole inputs and the others have windows.

    Args:
        cache: The scenes.
        seed: The seed of all random choices.
        images: The number of whole inputs in a batch.
        masks: The number of masks of each image.
        side: The side of the whole input in pixels.
        windowed: The number of steps at the start that have windows.
        whole_every: After these steps, the number of steps from one batch of whole inputs to the next.
        stretched: Whether the image is stretched to the square; otherwise it is padded.
        close: Whether a window shows about half of a scene's longest edge. Its objects are then as large as those of a
            whole input.
    """

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
        corners = 1 if whole else self.side // 8 - side // 8 + 1
        # The row and column are even, because attention in SAM 2's first stage works within blocks two cells wide. The
        # blocks of a window are then the same as those of the whole input.
        corner = rng.integers(0, (corners + 1) // 2, 2) * 2
        images, sizes, masks, boxes = (np.stack(field) for field in zip(*samples, strict=True))
        return Batch(images, sizes, masks, boxes, corner)

    def sample(self, rng: Rng, side: int, whole: bool) -> tuple[np.ndarray, ...]:
        """Return one image with its size, masks and boxes, as in `Batch`.

        Scenes without a sufficiently large object are skipped.

        Args:
            rng: The random generator.
            side: The side of the image in pixels.
            whole: Whether the image is a whole input; otherwise it is a window.
        """
        while True:
            scene = self.cache[int(rng.integers(self.cache.count))]
            uncropped, part = (0.6, PART) if whole else (0.0, CLOSE_PART) if self.close else (0.3, PART)
            image, labels = random_crop(rng, scene.image, scene.labels, side, uncropped, part, self.stretched)
            min_area = MIN_AREA * (self.side / LONGEST_EDGE) ** 2 * (1 if whole else 0.6)
            masks = choose_masks(rng, labels, scene.owners, self.masks, min_area)
            if masks is not None:
                break
        height, width = labels.shape
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        canvas[:height, :width] = recolor(rng, image) if rng.random() < RECOLORED_SHARE else image
        padded = np.zeros((self.masks, side, side), dtype=np.float32)
        padded[:, :height, :width] = masks
        cells = padded.reshape(self.masks, side // 2, 2, side // 2, 2).mean((2, 4))
        boxes = np.stack([bounding_box(mask) for mask in masks])
        return canvas, np.array([height, width]), (cells * 255).astype(np.uint8), boxes


def random_crop(
    rng: Rng, image: Bytes, labels: Bytes, side: int, uncropped: float, part: tuple[float, float], stretched: bool
) -> tuple[Bytes, Bytes]:
    """Crop, resize, rotate and mirror an image and its labels.

    Args:
        rng: The random generator.
        image: (height, width, 3).
        labels: (height, width).
        side: The longest edge of the result in pixels; both edges if `stretched`.
        uncropped: The probability that the image is not cropped.
        part: The minimum and maximum side of a crop, as shares of the image's longest edge.
        stretched: Whether the result is a square.

    Returns:
        The image and the labels.
    """
    if rng.random() > uncropped:
        longest = rng.uniform(*part) * max(labels.shape)
        shape = np.array([longest, longest / rng.choice([1.0, 4 / 3, 3 / 2, 16 / 9])])
        shape = shape if rng.random() < 0.3 else shape[::-1]
        height, width = np.minimum(np.maximum(shape.astype(int), 24), labels.shape)
        y, x = rng.integers(0, labels.shape[0] - height + 1), rng.integers(0, labels.shape[1] - width + 1)
        image, labels = (field[y : y + height, x : x + width] for field in (image, labels))
    scale = side / max(labels.shape)
    size = (max(8, round(labels.shape[1] * scale)), max(8, round(labels.shape[0] * scale)))
    size = (side, side) if stretched else size
    if size != labels.shape[::-1]:
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR))
        labels = np.asarray(Image.fromarray(np.ascontiguousarray(labels)).resize(size, Image.Resampling.NEAREST))
    turns = int(rng.choice([0, 1, 2, 3], p=[0.6, 0.1, 0.2, 0.1]))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    return (image[:, ::-1], labels[:, ::-1]) if rng.random() < 0.5 else (image, labels)


def choose_masks(rng: Rng, labels: Bytes, owners: Bytes, count: int, min_area: float) -> NDArray[np.bool_] | None:
    """Choose masks of random objects. No object is chosen twice before all are chosen once.

    With the probability PART_SHARE, a mask shows a part instead of its object. Parts are rare, so that the model
    segments the object if a click is ambiguous.

    Args:
        rng: The random generator.
        labels: (height, width), as in `Scene`.
        owners: (256,), as in `Scene`.
        count: The number of masks.
        min_area: The smallest area of an object or a part, in pixels.

    Returns:
        (count, height, width), or None if no object is large enough.
    """
    part_areas = np.bincount(labels.ravel(), minlength=256)
    object_areas = np.bincount(owners, weights=part_areas, minlength=256)
    object_areas[0] = part_areas[0] = 0
    objects = rng.permutation(np.flatnonzero(object_areas >= min_area))
    if not len(objects):
        return None
    is_part = (owners != np.arange(256)) | (part_areas < object_areas)
    parts = np.flatnonzero((part_areas >= min_area) & is_part)
    object_labels = owners[labels]
    masks = []
    for index in range(count):
        label = objects[index % len(objects)]
        its_parts = parts[owners[parts] == label]
        if len(its_parts) and rng.random() < PART_SHARE:
            masks.append(labels == rng.choice(its_parts))
        else:
            masks.append(object_labels == label)
    return np.stack(masks)


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
