"""Batches of augmented scenes and photographs with target masks. A batch depends only on the seed and the step.

A whole input is an image of the size that the model takes. A window is an image of half that side. The model encodes a
window as if it were cut out of a whole input, at a quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sam_endpoint.evaluation.geometry import bounding_box
from sam_endpoint.evaluation.scenes import LONGEST_EDGE, MIN_AREA
from sam_endpoint.training import augment
from sam_endpoint.training.augment import Bytes, Rng, recolor
from sam_endpoint.training.cache import SceneCache
from sam_endpoint.training.photographs import MAX_MASKS, Photograph, choose_bits

# If an object has parts, the probability that a mask shows a part instead of the whole object.
PART_SHARE = 0.15
# The share of images that `recolor` changes. Not all, because scenes already differ in light and camera.
RECOLORED_SHARE = 0.5
# The side of a crop as a share of the scene's longest edge, minimum and maximum.
PART = (0.35, 0.9)
PHOTOGRAPH_PART = (0.35, 0.75)  # of windows of photographs
CLOSE_PART = (0.35, 0.65)  # about a half, because the side of a window is half the side of a whole input
# The share of photographs that are cropped around one of their masks, so that its object is large.
AROUND_SHARE = 0.35
# The smallest object of photographs and composites, as a share of the whole input's pixels: 20 of 360 x 360 pixels.
SMALLEST = 1.5e-4

Cropped = tuple[Bytes, NDArray[np.bool_]]  # an image (height, width, 3) and masks (masks, height, width)


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


@dataclass(frozen=True)
class Mixture:
    """Training images in addition to the drawn scenes.

    Attributes:
        photographs: Photographs with masks.
        composites: Scenes that consist of parts of photographs.
        share: The share of images that are photographs. The photographs are equally likely.
        composite_share: The share of images that are composites.
    """

    photographs: Sequence[Photograph]
    composites: SceneCache
    share: float
    composite_share: float


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
        mixture: Photographs and composites; None to train on drawn scenes only.
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
        mixture: Mixture | None = None,
    ) -> None:
        self.cache, self.seed, self.images, self.masks = cache, seed, images, masks
        self.side, self.windowed, self.whole_every, self.stretched = side, windowed, whole_every, stretched
        self.close, self.mixture = close, mixture

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

        Images without a sufficiently large object are skipped.

        Args:
            rng: The random generator.
            side: The side of the image in pixels.
            whole: Whether the image is a whole input; otherwise it is a window.
        """
        kind = rng.random() if self.mixture else 1.0
        while True:
            cropped = self.crop(rng, side, whole, kind)
            if cropped is None:
                continue
            image, masks = cropped
            height, width = image.shape[:2]
            padded = np.zeros((self.masks, side, side), dtype=np.float32)
            padded[:, :height, :width] = masks
            cells = padded.reshape(self.masks, side // 2, 2, side // 2, 2).mean((2, 4))
            if (cells.max((1, 2)) > 0.5).all():  # a sliver can cover no cell
                break
        canvas = np.zeros((side, side, 3), dtype=np.uint8)
        canvas[:height, :width] = recolor(rng, image) if rng.random() < RECOLORED_SHARE else image
        boxes = np.stack([bounding_box(mask) for mask in masks])
        return canvas, np.array([height, width]), (cells * 255).astype(np.uint8), boxes

    def crop(self, rng: Rng, side: int, whole: bool, kind: float) -> Cropped | None:
        """Return a part of a photograph, a composite or a scene, with masks; None if it has no sufficiently large mask.

        Args:
            rng: The random generator.
            side: The longest edge of the image in pixels.
            whole: Whether the image is a whole input; otherwise it is a window.
            kind: 0 to 1. The shares of the mixture map this number to a kind of image.
        """
        mixture = self.mixture
        if mixture and kind < mixture.share:
            return self.crop_photograph(rng, mixture.photographs, side, whole)
        if mixture and kind < mixture.share + mixture.composite_share:
            return self.crop_scene(rng, mixture.composites, side, whole, SMALLEST * self.side**2)
        min_area = MIN_AREA * (self.side / LONGEST_EDGE) ** 2 * (1 if whole else 0.6)
        return self.crop_scene(rng, self.cache, side, whole, min_area)

    def crop_scene(self, rng: Rng, cache: SceneCache, side: int, whole: bool, min_area: float) -> Cropped | None:
        """Return a part of a random scene with masks, or None if the part has no object of `min_area` pixels."""
        scene = cache[int(rng.integers(cache.count))]
        image, labels = scene.image, scene.labels
        uncropped, part = (0.6, PART) if whole else (0.0, CLOSE_PART) if self.close else (0.3, PART)
        if rng.random() > uncropped:
            region = augment.random_region(rng, labels.shape, part)
            image, labels = image[region], labels[region]
        image, labels = augment.resize_and_turn(rng, image, labels, side, self.stretched)
        masks = choose_masks(rng, labels, scene.owners, self.masks, min_area)
        return None if masks is None else (image, masks)

    def crop_photograph(self, rng: Rng, photographs: Sequence[Photograph], side: int, whole: bool) -> Cropped | None:
        """Return a part of a random photograph with masks, or None if the part has no sufficiently large mask."""
        photograph = photographs[int(rng.integers(len(photographs)))]
        region: augment.Region = slice(0, photograph.size[0]), slice(0, photograph.size[1])
        kind = rng.random()
        if kind < AROUND_SHARE:
            box = photograph.boxes[int(rng.integers(len(photograph.boxes)))]
            region = augment.region_around(rng, photograph.size, box)
        elif not whole or kind < 0.6:
            region = augment.random_region(rng, photograph.size, PART if whole else PHOTOGRAPH_PART)
        indices = rng.permutation(photograph.visible(region))[:MAX_MASKS]
        image, labels = photograph.pixels()[region], photograph.labels(indices, region)
        image, labels = augment.resize_and_turn(rng, image, labels, side, self.stretched, augment.PHOTOGRAPH_TURNS)
        masks = choose_bits(rng, labels, self.masks, SMALLEST * self.side**2)
        return None if masks is None else (augment.degrade(rng, image), masks)


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
