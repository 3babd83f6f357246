"""Paint objects with shadows, relief and prints onto a canvas, from back to front under a single light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from sam_endpoint.evaluation.scenes import shapes, textures
from sam_endpoint.evaluation.scenes.shapes import Shape

Array = np.ndarray  # float32
Rng = np.random.Generator

MAX_LABELS = 250  # parts per scene; labels are uint8


@dataclass
class Finish:
    """The surface of an object. Several objects of a scene can have the same finish.

    Attributes:
        base: The mean RGB colour, `(3,)`, 0 to 1.
        relief: "flat", "ramp", "tube", "pillow" or "bevel".
        depth: The contrast of the relief.
        gloss: The brightness of the highlight, 0 for none.
        plainness: The probability of a surface without a pattern.
        decor: The probability of prints on the surface.
    """

    base: Array
    relief: str
    depth: float
    gloss: float
    plainness: float
    decor: float


def random_finish(rng: Rng, base: Array) -> Finish:
    """Return a random finish with the mean colour `base`, `(3,)`."""
    relief = rng.choice(["flat", "ramp", "tube", "pillow", "bevel"], p=[0.2, 0.2, 0.15, 0.3, 0.15])
    gloss = rng.uniform(0.1, 0.7) if rng.random() < 0.25 else 0.0
    return Finish(base, relief, rng.uniform(0.15, 0.65), gloss, rng.uniform(0.4, 0.9), 0.15)


def coin_finish(rng: Rng, base: Array) -> Finish:
    """Return a random finish of coins, with raised edges and often with prints, in the mean colour `base`, `(3,)`."""
    return Finish(base, "bevel", rng.uniform(0.4, 1.0), 0.0, 0.2, 0.6)


def blur(field: Array, radius: float) -> Array:
    """Blur an `(H, W)` array with values from 0 to 1 by `radius` pixels. The values are rounded to 8 bits."""
    image = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(radius))), dtype=np.float32) / 255


class Canvas:
    """A scene that is painted from back to front under a single light.

    Every painted shape is a part with its own label. An object is a part, and further parts can belong to it.

    Args:
        rng: The random generator.
        height: The height in pixels.
        width: The width in pixels.
        base: The mean colour of the ground, `(3,)`.

    Attributes:
        image: `(H, W, 3)` float32 RGB, about 0 to 1.
        labels: `(H, W)` uint8, the label of the visible part at each pixel; 0 for the background.
        owners: `(256,)` uint8, the label of the object that each part belongs to.
    """

    def __init__(self, rng: Rng, height: int, width: int, base: Array) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.image = textures.surface(rng, height, width, base, plainness=0.45).astype(np.float32)
        self.labels = np.zeros((height, width), dtype=np.uint8)
        self.owners = np.arange(256, dtype=np.uint8)
        self.count = 0
        angle = rng.uniform(0, 2 * np.pi)
        self.light = np.array([np.cos(angle), np.sin(angle)])
        self.shadow_depth = rng.uniform(0.15, 0.65)
        self.shadow_softness = rng.uniform(0.04, 0.3)
        self.shadow_reach = rng.uniform(0.05, 0.5)

    def mean_color(self) -> Array:
        """Return the mean colour of the current image, `(3,)`."""
        color: Array = self.image[::8, ::8].mean((0, 1))
        return color

    def add_object(self, shape: Shape, x: float, y: float, size: float, finish: Finish, shadow: bool) -> None:
        """Paint an object, sometimes with a further part on it or next to it.

        Args:
            shape: The shape in its unit frame.
            x: The x coordinate of the centre in pixels.
            y: The y coordinate of the centre in pixels.
            size: The approximate radius in pixels.
            finish: The surface.
            shadow: Whether the object casts a shadow.
        """
        angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.7 else self.rng.normal(0, 0.1)
        outline = shapes.place(shape, x, y, size, angle, self.rng.uniform(0.75, 1))
        if shadow:
            self._darken_shadow(outline, size)
        label = self._paint(outline, size, finish)
        if label is None or size < 12 or self.rng.random() > 0.22:
            return
        kind = self.rng.integers(3)
        if kind == 0:  # a smaller copy of the outline, such as a rim, the well of a plate or a screen
            shrink = self.rng.uniform(0.5, 0.88)
            part: Shape = [((points - [x, y]) * shrink + [x, y], solid) for points, solid in outline]
            radius = size * shrink
        else:
            radius = size * self.rng.uniform(0.2, 0.45)
            x, y = np.array([x, y]) + self.rng.uniform(-0.2, 0.2, 2) * size
            part = shapes.place(shapes.random_shape(self.rng), x, y, radius, self.rng.uniform(0, 6.3))
        base = textures.distinct_color(self.rng, finish.base, 0.2)
        self._paint(part, radius, random_finish(self.rng, base), owner=label, clipped=bool(kind < 2))

    def _darken_shadow(self, shape: Shape, size: float) -> None:
        """Darken the pixels next to an object of radius `size`, on the side away from the light."""
        reach = self.shadow_reach * min(size, 40)
        margin = int(reach + size * self.shadow_softness * 2) + 3
        window = shapes.pixel_window(shape, self.height, self.width)
        if window is None:
            return
        y_min, x_min = max(0, window[0] - margin), max(0, window[1] - margin)
        y_max, x_max = min(self.height, window[2] + margin), min(self.width, window[3] + margin)
        shifted = [(points - self.light * reach, solid) for points, solid in shape]
        shadow = shapes.coverage(shifted, (y_min, x_min, y_max, x_max))
        darkness = blur(shadow, max(0.6, min(size, 40) * self.shadow_softness))
        self.image[y_min:y_max, x_min:x_max] *= 1 - self.shadow_depth * darkness[..., None]

    def _paint(self, shape: Shape, size: float, finish: Finish, owner: int = 0, clipped: bool = False) -> int | None:
        """Paint a shape as a new part.

        Args:
            shape: The shape in pixel coordinates.
            size: The approximate radius in pixels.
            finish: The surface.
            owner: The label of the object that the shape belongs to; 0 if the shape is an object itself.
            clipped: Whether to paint only pixels where the owner is visible.

        Returns:
            The label of the part, or None if the shape is outside the image or the canvas has MAX_LABELS parts.
        """
        window = shapes.pixel_window(shape, self.height, self.width)
        if window is None or self.count >= MAX_LABELS:
            return None
        region = slice(window[0], window[2]), slice(window[1], window[3])
        alpha = shapes.coverage(shape, window)
        if clipped:
            alpha = alpha * (self.labels[region] == owner)
        height, width = alpha.shape
        patch = textures.surface(self.rng, height, width, finish.base, plainness=finish.plainness)
        if self.rng.random() < finish.decor:
            patch = self._add_prints(patch, finish.base)
        patch = patch * self._shading(alpha, finish.relief, finish.depth, size)[..., None]
        if finish.gloss:
            y, x = np.mgrid[:height, :width]
            spot = np.array([width, height]) * (0.5 + self.light * self.rng.uniform(0.1, 0.3))
            spread = max(1.0, size * self.rng.uniform(0.05, 0.25))
            highlight = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * spread**2))
            patch = patch + (finish.gloss * highlight)[..., None]
        if self.rng.random() < 0.08:
            outline = alpha * (1 - blur(alpha, max(0.7, size * 0.04))) * 2
            patch = patch * (1 - np.clip(outline, 0, 0.8))[..., None]
        self.image[region] += (patch - self.image[region]) * alpha[..., None]
        self.count += 1
        self.labels[region][alpha >= 0.5] = self.count
        if owner:
            self.owners[self.count] = owner
        return self.count

    def _shading(self, alpha: Array, relief: str, depth: float, size: float) -> Array:
        """Return the brightness of a shape's pixels.

        Args:
            alpha: The share of each pixel that the shape covers, `(H, W)`.
            relief: The relief, as in `Finish`.
            depth: The contrast of the relief.
            size: The approximate radius of the shape in pixels.

        Returns:
            `(H, W)`, factors around 1.
        """
        height, width = alpha.shape
        if relief == "flat":
            return np.ones_like(alpha)
        if relief == "ramp":
            return 1 + textures.gradient(self.rng, height, width) * depth * 0.7
        if relief == "tube":
            angle = self.rng.choice([0.0, np.pi / 2, self.rng.uniform(0, np.pi)])
            _, across = textures.rotated_coordinates(height, width, angle)
            across = (across - across.mean()) / max(1.0, float(np.ptp(across)) / 2)
            curved: Array = 1 + depth * (0.3 - (across - self.rng.uniform(-0.5, 0.5)) ** 2 * 1.3)
            return curved
        radius = size * (0.45 if relief == "pillow" else 0.1)
        raised = blur(np.pad(alpha, 4), max(1.0, radius))
        down, across = np.gradient(raised)
        slope = (across * -self.light[0] + down * -self.light[1])[4:-4, 4:-4] * max(2.0, 2 * radius)
        edge = (raised[4:-4, 4:-4] - 0.8) * (0.5 if relief == "pillow" else 0.0)
        shading: Array = (1 - depth * slope * 1.3 + depth * edge).astype(np.float32)
        return shading

    def _add_prints(self, patch: Array, base: Array) -> Array:
        """Return the `(H, W, 3)` surface with bands, spots or shapes printed on it in another colour."""
        height, width = patch.shape[:2]
        kind = self.rng.integers(3)
        ink = textures.surface(self.rng, height, width, textures.distinct_color(self.rng, base, 0.15), 0.8)
        if kind == 0:
            field = textures.value_noise(self.rng, height, width, max(4.0, width * 0.35), 3)
            share = np.clip((field - self.rng.uniform(0, 0.8)) * self.rng.uniform(2, 12), 0, 1)
        elif kind == 1:
            along, _ = textures.rotated_coordinates(height, width, self.rng.uniform(0, np.pi))
            period = self.rng.uniform(0.15, 0.8) * max(8, height)
            share = np.clip(np.sin(along * 2 * np.pi / period) * 6 - self.rng.uniform(-3, 5), 0, 1)
        else:
            prints: Shape = []
            for _ in range(self.rng.integers(1, 6)):
                x, y = self.rng.uniform(0.1, 0.9, 2) * [width, height]
                radius = self.rng.uniform(0.08, 0.3) * max(height, width)
                prints += shapes.place(shapes.random_shape(self.rng), x, y, radius, self.rng.uniform(0, 6.3))
            share = shapes.coverage(prints, (0, 0, height, width))
        printed: Array = patch + (ink - patch) * (share * self.rng.uniform(0.3, 1))[..., None]
        return printed
