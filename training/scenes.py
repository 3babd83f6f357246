"""Scenes drawn from a seed and an index: an image, and which pixel belongs to which visible thing.

`scene(seed, index)` depends on nothing else, so scenes of two seeds never meet.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training import shapes, textures

Array = np.ndarray  # float32
Rng = np.random.Generator

LONGEST_EDGE = 256
MOST_LABELS = 250
RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9, 2.0)


@dataclass
class Scene:
    """`image` (height, width, 3) uint8; `labels` (height, width) uint8, 0 for the background, else the part that is
    visible there; `owners` (256,) uint8, the thing each part belongs to (a thing is a part of itself)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    owners: NDArray[np.uint8]

    def things(self) -> NDArray[np.uint8]:
        """The thing visible at every pixel, (height, width) uint8, its parts included."""
        return self.owners[self.labels]


def blurred(field: Array, radius: float) -> Array:
    """A (height, width) field of 0 to 1, blurred by `radius` pixels, with three 8-bit box passes."""
    image = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(float(radius))), dtype=np.float32) / 255


@dataclass
class Finish:
    """How a thing is painted; several things of one scene may share it."""

    base: Array
    relief: str
    depth: float
    gloss: float
    calm: float
    decor: float


class Canvas:
    """A scene being painted, back to front, under one light."""

    def __init__(self, rng: Rng, height: int, width: int, base: Array) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.image = textures.surface(rng, height, width, base, calm=0.45).astype(np.float32)
        self.labels = np.zeros((height, width), dtype=np.uint8)
        self.owners = np.arange(256, dtype=np.uint8)
        self.count = 0
        turn = rng.uniform(0, 2 * np.pi)
        self.light = np.array([np.cos(turn), np.sin(turn)])
        self.shadow_depth = rng.uniform(0.15, 0.65)
        self.shadow_softness = rng.uniform(0.04, 0.3)
        self.shadow_reach = rng.uniform(0.05, 0.5)

    def mean_colour(self) -> Array:
        """The mean colour (3,) so far."""
        return self.image[::8, ::8].mean((0, 1))

    def shadow(self, shape: shapes.Shape, size: float) -> None:
        """Darken what lies beside a thing of radius `size`, away from the light, and under its edge."""
        reach = self.shadow_reach * min(size, 40)
        margin = int(reach + size * self.shadow_softness * 2) + 3
        seen = shapes.window(shape, self.height, self.width)
        if seen is None:
            return
        top, left = max(0, seen[0] - margin), max(0, seen[1] - margin)
        bottom, right = min(self.height, seen[2] + margin), min(self.width, seen[3] + margin)
        moved = [(points - self.light * reach, solid) for points, solid in shape]
        cast = shapes.coverage(moved, top, left, bottom, right)
        dark = blurred(cast, max(0.6, min(size, 40) * self.shadow_softness))
        self.image[top:bottom, left:right] *= 1 - self.shadow_depth * dark[..., None]

    def shade(self, alpha: Array, relief: str, depth: float, size: float) -> Array:
        """Brightness (height, width) around 1 of a thing whose window is `alpha` (height, width)."""
        height, width = alpha.shape
        if relief == "flat":
            return np.ones_like(alpha)
        if relief == "ramp":
            return 1 + textures.gradient(self.rng, height, width) * depth * 0.7
        if relief == "tube":
            turn = self.rng.choice([0.0, np.pi / 2, self.rng.uniform(0, np.pi)])
            _, across = textures.coordinates(height, width, turn)
            across = (across - across.mean()) / max(1.0, float(np.ptp(across)) / 2)
            return 1 + depth * (0.3 - (across - self.rng.uniform(-0.5, 0.5)) ** 2 * 1.3)
        radius = size * (0.45 if relief == "pillow" else 0.1)
        padded = np.pad(alpha, 4)
        raised = blurred(padded, max(1.0, radius))
        down, across = np.gradient(raised)
        slope = (across * -self.light[0] + down * -self.light[1])[4:-4, 4:-4] * max(2.0, 2 * radius)
        edge = (raised[4:-4, 4:-4] - 0.8) * (0.5 if relief == "pillow" else 0.0)
        return (1 - depth * slope * 1.3 + depth * edge).astype(np.float32)

    def paint(
        self, shape: shapes.Shape, size: float, finish: Finish, owner: int = 0, clipped: bool = False
    ) -> int | None:
        """Paint a placed shape of about `size` pixels radius; its label, or None if nothing of it shows.

        `owner` is the label of the thing it is part of, 0 if it is a thing of its own; a clipped part shows only
        where its owner does, another may stick out.
        """
        seen = shapes.window(shape, self.height, self.width)
        if seen is None or self.count >= MOST_LABELS:
            return None
        top, left, bottom, right = seen
        alpha = shapes.coverage(shape, top, left, bottom, right)
        if clipped:
            alpha = alpha * (self.labels[top:bottom, left:right] == owner)
        height, width = alpha.shape
        patch = textures.surface(self.rng, height, width, finish.base, calm=finish.calm)
        if self.rng.random() < finish.decor:
            patch = self.decorated(patch, finish.base)
        patch = patch * self.shade(alpha, finish.relief, finish.depth, size)[..., None]
        if finish.gloss:
            y, x = np.mgrid[:height, :width]
            spot = np.array([width, height]) * (0.5 + self.light * self.rng.uniform(0.1, 0.3))
            spread = max(1.0, size * self.rng.uniform(0.05, 0.25))
            shine = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * spread**2))
            patch = patch + (finish.gloss * shine)[..., None]
        if self.rng.random() < 0.08:
            outline = alpha * (1 - blurred(alpha, max(0.7, size * 0.04))) * 2
            patch = patch * (1 - np.clip(outline, 0, 0.8))[..., None]
        self.image[top:bottom, left:right] += (patch - self.image[top:bottom, left:right]) * alpha[..., None]
        self.count += 1
        self.labels[top:bottom, left:right][alpha >= 0.5] = self.count
        if owner:
            self.owners[self.count] = owner
        return self.count

    def decorated(self, patch: Array, base: Array) -> Array:
        """A surface (height, width, 3) with prints on it: bands, spots or figures in other colours."""
        height, width = patch.shape[:2]
        kind = self.rng.integers(3)
        second = textures.surface(self.rng, height, width, textures.distinct_colour(self.rng, base, 0.15), 0.8)
        if kind == 0:
            field = textures.value_noise(self.rng, height, width, max(4.0, width * 0.35), 3)
            share = np.clip((field - self.rng.uniform(0, 0.8)) * self.rng.uniform(2, 12), 0, 1)
        elif kind == 1:
            along, _ = textures.coordinates(height, width, self.rng.uniform(0, np.pi))
            period = self.rng.uniform(0.15, 0.8) * max(8, height)
            share = np.clip(np.sin(along * 2 * np.pi / period) * 6 - self.rng.uniform(-3, 5), 0, 1)
        else:
            prints: shapes.Shape = []
            for _ in range(self.rng.integers(1, 6)):
                x, y = self.rng.uniform(0.1, 0.9, 2) * [width, height]
                radius = self.rng.uniform(0.08, 0.3) * max(height, width)
                prints += shapes.placed(shapes.any_shape(self.rng), x, y, radius, self.rng.uniform(0, 6.3))
            share = shapes.coverage(prints, 0, 0, height, width)
        return patch + (second - patch) * (share * self.rng.uniform(0.3, 1))[..., None]

    def thing(self, shape: shapes.Shape, x: float, y: float, size: float, finish: Finish, shadow: bool) -> None:
        """Place a thing with its shadow, sometimes with something on it, or made of two parts."""
        angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.7 else self.rng.normal(0, 0.1)
        whole = shapes.placed(shape, x, y, size, angle, self.rng.uniform(0.75, 1))
        if shadow:
            self.shadow(whole, size)
        label = self.paint(whole, size, finish)
        if label is None or size < 12 or self.rng.random() > 0.22:
            return
        kind = self.rng.integers(3)
        if kind == 0:  # the same outline again, smaller: a rim, a plate's well, a screen
            shrink = self.rng.uniform(0.5, 0.88)
            inner, radius = [((p - [x, y]) * shrink + [x, y], solid) for p, solid in whole], size * shrink
        else:
            radius = size * self.rng.uniform(0.2, 0.45)
            x, y = np.array([x, y]) + self.rng.uniform(-0.2, 0.2, 2) * size
            inner = shapes.placed(shapes.any_shape(self.rng), x, y, radius, self.rng.uniform(0, 6.3))
        base = textures.distinct_colour(self.rng, finish.base, 0.2)
        self.paint(inner, radius, any_finish(self.rng, base), owner=label, clipped=bool(kind < 2))


def any_finish(rng: Rng, base: Array) -> Finish:
    relief = rng.choice(["flat", "ramp", "tube", "pillow", "bevel"], p=[0.2, 0.2, 0.15, 0.3, 0.15])
    gloss = rng.uniform(0.1, 0.7) if rng.random() < 0.25 else 0.0
    return Finish(base, relief, rng.uniform(0.15, 0.65), gloss, rng.uniform(0.4, 0.9), 0.15)


def coin_finish(rng: Rng, base: Array) -> Finish:
    return Finish(base, "bevel", rng.uniform(0.4, 1.0), 0.0, 0.2, 0.6)


def table(rng: Rng, canvas: Canvas) -> None:
    """A few things lying apart on one surface."""
    canvas.shadow_depth = rng.uniform(0.1, 0.65)
    for x, y, size in spots(rng, canvas, int(rng.integers(1, 8)), 0.07, 0.3, 0.95):
        base = textures.distinct_colour(rng, canvas.mean_colour(), 0.2)
        canvas.thing(shapes.any_shape(rng), x, y, size, any_finish(rng, base), rng.random() < 0.85)


def clutter(rng: Rng, canvas: Canvas) -> None:
    """Many things that overlap, drawn one over the other."""
    shadows = rng.random() < 0.6
    longest = max(canvas.height, canvas.width)
    for _ in range(rng.integers(6, 22)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        size = longest * np.exp(rng.uniform(np.log(0.04), np.log(0.25)))
        row, column = min(int(y), canvas.height - 1), min(int(x), canvas.width - 1)
        base = textures.distinct_colour(rng, canvas.image[row, column], 0.2)
        canvas.thing(shapes.any_shape(rng), x, y, size, any_finish(rng, base), shadows)


def rows(rng: Rng, canvas: Canvas) -> None:
    """Small things of one kind in loose rows: coins, beans, screws, buttons, pills."""
    longest = max(canvas.height, canvas.width)
    size = longest * np.exp(rng.uniform(np.log(0.025), np.log(0.08)))
    pitch = size * rng.uniform(2.2, 3.6)
    coins = rng.random() < 0.5
    shape = shapes.disc(rng) if coins else shapes.any_shape(rng)
    base = textures.distinct_colour(rng, canvas.mean_colour(), 0.15)
    finish = coin_finish(rng, base) if coins else any_finish(rng, base)
    mixed, looseness, spread = rng.random() < 0.3, rng.uniform(0, 0.25), rng.uniform(0, 0.25)
    for y in np.arange(pitch * 0.6, canvas.height, pitch):
        for x in np.arange(pitch * 0.6, canvas.width, pitch):
            if rng.random() < 0.12:
                continue
            dx, dy = rng.normal(0, looseness, 2) * size
            tone = np.clip(base * rng.uniform(0.75, 1.25) + rng.normal(0, 0.03, 3), 0, 1).astype(np.float32)
            own = Finish(tone, finish.relief, finish.depth, finish.gloss, finish.calm, finish.decor)
            if mixed:
                shape = shapes.any_shape(rng)
                own = any_finish(rng, textures.distinct_colour(rng, canvas.mean_colour(), 0.2))
            canvas.thing(shape, x + dx, y + dy, size * np.exp(rng.normal(0, spread)), own, True)


def portrait(rng: Rng, canvas: Canvas) -> None:
    """One thing that fills much of the frame, perhaps cut by its border, with some small ones."""
    base = textures.distinct_colour(rng, canvas.mean_colour(), 0.2)
    x, y = np.array([canvas.width, canvas.height]) * rng.uniform(0.25, 0.75, 2)
    size = max(canvas.height, canvas.width) * rng.uniform(0.25, 0.55)
    canvas.thing(shapes.any_shape(rng), x, y, size, any_finish(rng, base), rng.random() < 0.7)
    for x, y, size in spots(rng, canvas, int(rng.integers(0, 6)), 0.03, 0.12, 0.5):
        base = textures.distinct_colour(rng, canvas.mean_colour(), 0.2)
        canvas.thing(shapes.any_shape(rng), x, y, size, any_finish(rng, base), rng.random() < 0.7)


def spots(rng: Rng, canvas: Canvas, count: int, low: float, high: float, gap: float) -> list[tuple[float, ...]]:
    """Up to `count` places (x, y, radius in pixels); radii are shares of the longest edge between `low` and `high`."""
    taken: list[tuple[float, ...]] = []
    longest = max(canvas.height, canvas.width)
    for _ in range(count * 4):
        size = longest * np.exp(rng.uniform(np.log(low), np.log(high)))
        x, y = rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.05, 0.95) * canvas.height
        if all(np.hypot(x - a, y - b) > gap * (size + c) for a, b, c in taken):
            taken.append((x, y, size))
        if len(taken) == count:
            break
    return taken


def backdrop(rng: Rng, canvas: Canvas) -> None:
    """Give the ground what grounds have: a wall behind the table, light falling off, shadows of unseen things."""
    height, width = canvas.height, canvas.width
    _, across = textures.coordinates(height, width, rng.normal(0, 0.15))
    if rng.random() < 0.3:
        edge = across - np.quantile(across, rng.uniform(0.1, 0.6))
        side = np.clip(edge * rng.choice([1.0, -1.0]) / rng.uniform(0.5, 6) + 0.5, 0, 1)
        wall = textures.surface(rng, height, width, textures.colour(rng), calm=0.6)
        canvas.image += (wall - canvas.image) * side[..., None]
    if rng.random() < 0.5:
        fall = textures.gradient(rng, height, width) * rng.uniform(0.05, 0.45)
        canvas.image *= (1 + fall)[..., None]
    if rng.random() < 0.3:
        field = textures.value_noise(rng, height, width, rng.uniform(60, 200), 2)
        dark = np.clip((field - rng.uniform(0, 1)) / rng.uniform(0.1, 1), 0, 1) * rng.uniform(0.1, 0.4)
        canvas.image *= (1 - dark)[..., None]


def developed(rng: Rng, image: Array) -> NDArray[np.uint8]:
    """What a camera makes of it, (height, width, 3) uint8: lamp, focus, grey, grain, compression."""
    height, width = image.shape[:2]
    if rng.random() < 0.4:
        lamp = 1 + textures.value_noise(rng, height, width, 200, 1) * rng.uniform(0.03, 0.15)
        image = image * lamp[..., None]
    image = np.clip(image * rng.uniform(0.75, 1.15) + rng.uniform(-0.05, 0.1), 0, 1)
    if rng.random() < 0.25:
        image = np.repeat((image @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None], 3, axis=2)
    picture = Image.fromarray((image * 255).astype(np.uint8))
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.4:
        grain = rng.standard_normal((height, width, 3 if rng.random() < 0.5 else 1), dtype=np.float32)
        noisy = np.asarray(picture, dtype=np.float32) + grain * np.float32(rng.uniform(1, 12))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        packed = io.BytesIO()
        picture.save(packed, "jpeg", quality=int(rng.integers(30, 90)))
        picture = Image.open(packed)
    return np.asarray(picture)


KINDS = (table, clutter, rows, portrait)


def scene(seed: int, index: int, longest_edge: int = LONGEST_EDGE) -> Scene:
    """Scene `index` of the endless row that `seed` names."""
    rng = np.random.default_rng([seed, index])
    shorter = round(longest_edge / rng.choice(RATIOS, p=[0.25, 0.3, 0.25, 0.15, 0.05]))
    height, width = (shorter, longest_edge) if rng.random() < 0.7 else (longest_edge, shorter)
    canvas = Canvas(rng, height, width, textures.colour(rng))
    backdrop(rng, canvas)
    KINDS[rng.choice(len(KINDS), p=[0.42, 0.2, 0.23, 0.15])](rng, canvas)
    return Scene(developed(rng, canvas.image), canvas.labels, canvas.owners)
