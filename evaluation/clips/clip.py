"""Draw clips: objects that move, turn, change size, cross, and are hidden for some frames, in changing light.

A clip depends only on its seed, its index and its length, so different seeds give different clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from sam_endpoint.evaluation.clips.motion import Motion, Wave, cross, leave_and_return, random_wave, wander
from sam_endpoint.evaluation.clips.sprites import Sprite, draw_sprite
from sam_endpoint.evaluation.scenes import LONGEST_EDGE, MIN_AREA, layouts, shapes, textures
from sam_endpoint.evaluation.scenes.canvas import Canvas, blur, random_finish

Rng = np.random.Generator
Array = NDArray[np.float32]

HELD_OUT_SEED = 3  # training never uses clips of this seed
FRAMES = 32
RATIOS = (1.0, 4 / 3, 16 / 9)
HIDDEN = 0.05  # an object is hidden if less than this share of its first area is visible
HIDDEN_FRAMES = 2  # the least length of an occlusion
SHADOW = 0.4  # darkness of shadows
MAX_HIDDEN = 0.5  # the largest share of frames in which an object may be hidden
ATTEMPTS = 20  # at a clip in which an object is hidden and comes back
PAN = 0.12  # the largest displacement of the camera, as a share of the longest edge


@dataclass
class Clip:
    """A synthetic video with exact masks.

    Attributes:
        frames: `(T, H, W, 3)` uint8 RGB.
        labels: `(T, H, W)` uint8, the number of the visible object at each pixel; 0 for the background. Objects of the
            background that do not move have no number.
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def areas(self) -> NDArray[np.int64]:
        """Return the number of visible pixels of each object in each frame, `(T, 256)`."""
        return np.stack([np.bincount(labels.ravel(), minlength=256) for labels in self.labels])

    def objects(self) -> list[int]:
        """Return the numbers of the objects with at least MIN_AREA visible pixels in the first frame."""
        return [int(number) for number in np.flatnonzero(self.areas()[0] >= MIN_AREA) if number]

    def mask(self, frame: int, number: int) -> NDArray[np.bool_]:
        """Return the `(H, W)` bool mask of an object in a frame."""
        mask: NDArray[np.bool_] = self.labels[frame] == number
        return mask

    def hidden(self, number: int) -> NDArray[np.bool_]:
        """Return for each frame whether an object is hidden, `(T,)`. The object is one of `objects`."""
        areas = self.areas()[:, number]
        hidden: NDArray[np.bool_] = areas < HIDDEN * areas[0]
        return hidden

    def has_occlusion(self) -> bool:
        """Return whether an object is hidden for HIDDEN_FRAMES frames and comes back, and none is hidden too long."""
        all_hidden = [self.hidden(number) for number in self.objects()]
        return any(hidden.sum() >= HIDDEN_FRAMES and not hidden[-1] for hidden in all_hidden) and all(
            hidden.mean() <= MAX_HIDDEN for hidden in all_hidden
        )


def draw_clip(seed: int, index: int, length: int = FRAMES, longest_edge: int = LONGEST_EDGE) -> Clip:
    """Draw a clip in which at least one object is hidden for some frames and comes back.

    Args:
        seed: The seed of an endless sequence of clips.
        index: The number of the clip in the sequence.
        length: The number of frames T, at least 8.
        longest_edge: The longest edge of the frames in pixels.

    Example:
        >>> clip = draw_clip(seed=3, index=0, length=8)
        >>> clip.frames.shape[0], clip.labels.dtype.name, len(clip.objects()) > 0
        (8, 'uint8', True)
    """
    for attempt in range(ATTEMPTS):
        clip = _draw(np.random.default_rng([seed, index, attempt]), length, longest_edge)
        if clip.has_occlusion():
            break
    return clip


def _draw(rng: Rng, length: int, longest_edge: int) -> Clip:
    shorter = round(longest_edge / rng.choice(RATIOS))
    height, width = (shorter, longest_edge) if rng.random() < 0.7 else (longest_edge, shorter)
    backdrop = _draw_backdrop(rng, height, width, int(PAN * longest_edge))
    sprites = _draw_sprites(rng, height, width)
    camera = _Camera(rng, height, width, (backdrop.shape[0] - height, backdrop.shape[1] - width))
    frames, labels = [], []
    for time in np.linspace(0, 1, length):
        image, label = _compose(backdrop, sprites, camera, float(time))
        frames.append(camera.photograph(rng, image, float(time)))
        labels.append(label)
    return Clip(np.stack(frames), np.stack(labels))


def _draw_backdrop(rng: Rng, height: int, width: int, margin: int) -> Array:
    """Return the still background, larger than a frame by `margin` pixels on each side, `(H, W, 3)`."""
    canvas = Canvas(rng, height + 2 * margin, width + 2 * margin, textures.random_color(rng))
    if rng.random() < 0.6:
        layout = layouts.table if rng.random() < 0.7 else layouts.clutter
        layout(rng, canvas)
    return canvas.image


def _draw_sprites(rng: Rng, height: int, width: int) -> list[Sprite]:
    """Return the moving objects from back to front: wandering objects, and one or two that cover one of them."""
    longest = max(height, width)
    motions: list[Motion] = []
    for _ in range(rng.integers(1, 4)):
        motions.append(wander(rng, height, width, longest * rng.uniform(0.06, 0.14), rng.uniform(0.1, 0.55)))
    target = motions[0]
    if rng.random() < 0.2:
        leave_and_return(target, height, width)
    covers = []
    for time in rng.uniform(0.3, 0.65, rng.integers(1, 3)):
        size = target.size.at(time) * rng.uniform(1.3, 1.8)
        covers.append(cross(rng, target, float(time), size, longest * rng.uniform(0.5, 1.1)))
    finish = random_finish(rng, textures.random_color(rng))
    shape = shapes.random_shape(rng)
    sprites = []
    for number, motion in enumerate([*motions, *covers]):
        is_cover = number >= len(motions)
        # Some objects look like the one before, so that only their places and motions tell them apart.
        if number and rng.random() > 0.25:
            finish = random_finish(rng, textures.distinct_color(rng, finish.base, 0.2))
            shape = shapes.random_shape(rng)
        if is_cover:
            shape = (shapes.disc, shapes.rounded_box, shapes.box, shapes.blob)[rng.integers(4)](rng)
        sprites.append(draw_sprite(rng, shape, finish, motion))
    return sprites


class _Camera:
    """The camera and the light of a clip: a pan, brightness and colour that change, defocus and grain."""

    def __init__(self, rng: Rng, height: int, width: int, room: tuple[int, int]) -> None:
        self.size, self._room = (height, width), room
        pan = 0.5 if rng.random() < 0.5 else 0.0
        self._down = random_wave(rng, 0.5, 0.4 * pan, 0.3 * pan)
        self._right = random_wave(rng, 0.5, 0.4 * pan, 0.3 * pan)
        self._gain = random_wave(rng, rng.uniform(0.75, 1.1), 0.35, 0.12)
        self._warmth = random_wave(rng, 0.0, 0.08, 0.04)
        self._along, _ = textures.rotated_coordinates(height, width, rng.uniform(0, 2 * np.pi))
        self._along = self._along / float(np.abs(self._along).max())
        self._shade = rng.uniform(0.15, 0.5) if rng.random() < 0.4 else 0.0
        self._shade_at = Wave(rng.uniform(-1, 1), rng.uniform(-2, 2))
        self._defocus = rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0.0
        self._grain = rng.uniform(1, 7) if rng.random() < 0.6 else 0.0
        self.shadow = np.array([rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)]) if rng.random() < 0.5 else None

    def corner(self, time: float) -> tuple[int, int]:
        """Return the row and column of the background at which the frame begins."""
        down, right = (min(1.0, max(0.0, wave.at(time))) for wave in (self._down, self._right))
        return round(down * self._room[0]), round(right * self._room[1])

    def photograph(self, rng: Rng, image: Array, time: float) -> NDArray[np.uint8]:
        """Convert an `(H, W, 3)` image with values around 0 to 1 to an `(H, W, 3)` uint8 frame."""
        warmth = self._warmth.at(time)
        image = image * np.float32(max(0.3, self._gain.at(time))) * np.array([1 + warmth, 1, 1 - warmth], np.float32)
        if self._shade:
            darkness = self._shade * np.exp(-((self._along - np.float32(self._shade_at.at(time))) ** 2) / 0.18)
            image = image * (1 - darkness)[..., None]
        photo = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
        if self._defocus:
            photo = photo.filter(ImageFilter.GaussianBlur(self._defocus))
        pixels = np.asarray(photo)
        if self._grain:
            noisy = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(self._grain)
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
        return pixels


def _compose(backdrop: Array, sprites: list[Sprite], camera: _Camera, time: float) -> tuple[Array, NDArray[np.uint8]]:
    """Paint the objects over the background. Return the `(H, W, 3)` image and the `(H, W)` labels."""
    top, left = camera.corner(time)
    height, width = camera.size
    image = backdrop[top : top + height, left : left + width].copy()
    labels = np.zeros((height, width), np.uint8)
    # Objects stand in the scene, so the pan of the camera moves them too.
    first_top, first_left = camera.corner(0)
    pan = (first_top - top, first_left - left)
    for number, sprite in enumerate(sprites, 1):
        placed = sprite.placed(time, camera.size, pan)
        if placed is None:
            continue
        window, pixels, cover = placed
        if camera.shadow is not None:
            _darken(image, window, cover, camera.shadow * sprite.motion.size.at(time))
        image[window] += (pixels - image[window]) * cover[..., None]
        labels[window][cover >= 0.5] = number
    return image, labels


def _darken(image: Array, window: tuple[slice, slice], cover: Array, offset: NDArray[np.float64]) -> None:
    """Darken an image where the shadow of an object falls: its cover, moved by `offset` pixels (x, y) and blurred."""
    across, down = offset
    moved = ndimage.shift(cover, (down, across), order=1, prefilter=False)
    image[window] *= 1 - SHADOW * blur(moved, 2.0)[..., None]
