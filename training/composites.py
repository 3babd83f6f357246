"""Composites: scenes whose ground, objects and textures come from photographs, with exact masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter
from pycocotools import mask as coco

from sam_endpoint.evaluation.scenes import Scene, layouts, shapes
from sam_endpoint.evaluation.scenes.canvas import MAX_LABELS, Canvas, blur, random_finish
from sam_endpoint.evaluation.scenes.scene import RATIOS, photograph
from sam_endpoint.evaluation.scenes.textures import distinct_color, gradient
from sam_endpoint.training.augment import random_region
from sam_endpoint.training.photographs import Photograph

Array = np.ndarray  # float32
Rng = np.random.Generator

EDGE = 384  # pixels, the longest edge of a composite
MIN_CUT = 400  # pixels of the smallest mask that is cut out of a photograph


def draw_composite(photographs: Sequence[Photograph], seed: int, index: int) -> Scene:
    """Paste cut-outs of photographs, shapes with photographic textures, and drawn objects onto a photograph.

    The result depends only on the arguments. The objects on the ground photograph itself have no label.

    Args:
        photographs: The photographs, of one folder or several. Each folder provides as many cut-outs as the others.
        seed: The seed of an endless sequence of composites.
        index: The number of the composite in the sequence.
    """
    rng = np.random.default_rng([seed, index, EDGE])
    shorter = round(EDGE / rng.choice(RATIOS))
    height, width = (shorter, EDGE) if rng.random() < 0.7 else (EDGE, shorter)
    ground = _random_patch(rng, photographs, height, width)
    if rng.random() < 0.35:  # the camera focuses on the objects
        ground = blurred(ground, rng.uniform(0.5, 5))
    collage = Collage(rng, ground, photographs)
    count = int(rng.choice([3, 8, 16, 30], p=[0.35, 0.3, 0.25, 0.1]))
    largest = {3: 0.45, 8: 0.25, 16: 0.16, 30: 0.08}[count]
    gap = rng.choice([0.9, 0.5, 0.25])
    circles = layouts.sample_circles(rng, collage.canvas, count, 0.015, largest, gap)
    for x, y, size in sorted(circles, key=lambda circle: -circle[2] * rng.uniform(0.5, 2)):
        collage.add(x, y, size)
    return Scene(photograph(rng, collage.canvas.image), collage.canvas.labels, collage.canvas.owners)


class Collage:
    """A canvas with a photograph as its ground.

    Args:
        rng: The random generator.
        ground: The ground, (height, width, 3) float32, 0 to 1.
        photographs: The sources of cut-outs and textures.

    Attributes:
        canvas: The image and its labels.
    """

    def __init__(self, rng: Rng, ground: Array, photographs: Sequence[Photograph]) -> None:
        self.rng, self.photographs = rng, photographs
        self.canvas = Canvas(rng, ground.shape[0], ground.shape[1], ground.mean((0, 1)))
        self.canvas.image = ground.copy()
        folders: dict[object, list[Photograph]] = {}
        for source in photographs:
            folders.setdefault(source.file.parent, []).append(source)
        self.folders = list(folders.values())
        self.harmony = rng.uniform(0, 0.6)  # how far the colours of objects move towards those of the ground
        self.softness = rng.uniform(0.4, 1.1)  # pixels, the blur of all outlines

    def add(self, x: float, y: float, size: float) -> None:
        """Add a random object with the radius `size` at (x, y), all in pixels."""
        kind = self.rng.random()
        if kind < 0.15:
            base = distinct_color(self.rng, self.canvas.mean_color(), 0.1)
            finish = random_finish(self.rng, base)
            self.canvas.add_object(shapes.random_shape(self.rng), x, y, size, finish, self.rng.random() < 0.7)
            return
        patch, alpha = self.textured_shape(size) if kind < 0.45 else self.cut_out(size)
        self.paste(patch, alpha, round(x - alpha.shape[1] / 2), round(y - alpha.shape[0] / 2), size)

    def textured_shape(self, size: float) -> tuple[Array, Array]:
        """Return a shape that is filled with a part of a photograph: colours (h, w, 3) and coverage (h, w)."""
        edge = max(6, round(2.4 * size))
        angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.6 else 0.0
        outline = shapes.place(shapes.random_shape(self.rng), edge / 2, edge / 2, size, angle, self.rng.uniform(0.6, 1))
        alpha = shapes.coverage(outline, (0, 0, edge, edge))
        patch = _random_patch(self.rng, self.photographs, edge, edge)
        light = gradient(self.rng, edge, edge) * self.rng.uniform(0, 0.4)
        return patch * (1 + light)[..., None], alpha

    def cut_out(self, size: float) -> tuple[Array, Array]:
        """Return an object of a photograph: colours (h, w, 3) and coverage (h, w)."""
        while True:
            folder = self.folders[int(self.rng.integers(len(self.folders)))]
            source = folder[int(self.rng.integers(len(folder)))]
            index = int(self.rng.integers(len(source.masks)))
            # A small mask has too few pixels, and no mask has the pixels for more than twice its size.
            if coco.area(source.masks[index]) >= MIN_CUT and np.ptp(source.boxes[index].reshape(2, 2), 0).max() > size:
                break
        x1, y1, x2, y2 = source.boxes[index].astype(int)
        mask = coco.decode(source.masks[index])[y1:y2, x1:x2] * np.uint8(255)
        image = Image.fromarray(np.dstack([source.pixels()[y1:y2, x1:x2], mask]))
        scale = 2 * size / max(image.size)
        image = image.resize((max(3, round(image.width * scale)), max(3, round(image.height * scale))), reducing_gap=2)
        angle = self.rng.normal(0, 15) if self.rng.random() < 0.7 else self.rng.uniform(0, 360)
        image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        pixels = np.asarray(image, np.float32) / 255
        pixels = pixels[:, ::-1] if self.rng.random() < 0.5 else pixels
        return pixels[..., :3], pixels[..., 3]

    def paste(self, patch: Array, alpha: Array, left: int, top: int, size: float) -> None:
        """Paste an object with a contact shadow.

        Args:
            patch: (h, w, 3), the colours.
            alpha: (h, w), the coverage.
            left: The column of the patch's first pixel; can be outside the image.
            top: The row of the patch's first pixel; can be outside the image.
            size: The radius of the object in pixels.
        """
        canvas, rng = self.canvas, self.rng
        margin = max(4, round(size * 0.5))
        alpha = np.pad(alpha, margin)
        patch = np.pad(patch, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
        # The outline moves inwards, so that no pixel shows the original background of a cut-out.
        alpha = np.clip(2 * blur(alpha, 0.7) - 0.85, 0, 1)
        if size > 8 and rng.random() < 0.15:  # out of focus
            radius = rng.uniform(0.5, 2.5)
            patch, alpha = blurred(patch, radius), blur(alpha, radius)
        alpha = blur(alpha, self.softness)
        top, left = top - margin, left - margin
        rows = slice(max(0, -top), max(0, min(alpha.shape[0], canvas.height - top)))
        columns = slice(max(0, -left), max(0, min(alpha.shape[1], canvas.width - left)))
        region = slice(top + rows.start, top + rows.stop), slice(left + columns.start, left + columns.stop)
        ground = canvas.image[region]
        if not ground.size or canvas.count >= MAX_LABELS:
            return
        if rng.random() < 0.7:
            reach = canvas.light * size * canvas.shadow_reach * 0.6
            shadow = np.roll(alpha, (round(reach[1]), round(reach[0])), (0, 1))
            shadow = blur(shadow, max(0.7, size * canvas.shadow_softness))[rows, columns]
            ground *= 1 - canvas.shadow_depth * shadow[..., None]
        patch = self.harmonise(patch, alpha, ground)[rows, columns]
        alpha = alpha[rows, columns]
        ground += (patch - ground) * alpha[..., None]
        canvas.count += 1
        canvas.labels[region][alpha >= 0.5] = canvas.count

    def harmonise(self, patch: Array, alpha: Array, ground: Array) -> Array:
        """Move the mean colour and the contrast of an object towards those of the ground around it."""
        inside = patch[alpha > 0.5]
        if not len(inside):
            return patch
        mean, spread = inside.mean(0), float(inside.std()) + 0.02
        target = mean + (ground.mean((0, 1)) - mean) * self.harmony * self.rng.uniform(0, 1)
        contrast = (float(ground.std()) + 0.02) / spread
        contrast = float(np.clip(contrast ** (self.harmony * 0.7), 0.5, 1.6)) * np.exp(self.rng.normal(0, 0.1))
        tint = np.exp(self.rng.normal(0, 0.08, 3)).astype(np.float32)
        moved: Array = np.clip(((patch - mean) * contrast + target) * tint, 0, 1.2).astype(np.float32)
        return moved


def blurred(image: Array, radius: float) -> Array:
    """Blur an image (height, width, 3), 0 to 1. The values are rounded to 8 bits."""
    photo = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(photo.filter(ImageFilter.GaussianBlur(float(radius))), np.float32) / 255


def _random_patch(rng: Rng, photographs: Sequence[Photograph], height: int, width: int) -> Array:
    """Return a random part of a photograph, enlarged or reduced to a size, (height, width, 3) float32, 0 to 1."""
    source = photographs[int(rng.integers(len(photographs)))]
    pixels = source.pixels()[random_region(rng, source.size, (0.3, 1.0))]
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), reducing_gap=2)
    return np.asarray(image, np.float32) / 255
