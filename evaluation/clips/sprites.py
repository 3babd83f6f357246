"""Draw an object once, and place it in each frame of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sam_endpoint.evaluation.clips.motion import Motion
from sam_endpoint.evaluation.scenes.canvas import Canvas, Finish
from sam_endpoint.evaluation.scenes.shapes import Shape

Array = NDArray[np.float32]
Rng = np.random.Generator

DETAIL = 2  # pixels of a sprite per pixel of a frame
MARGIN = 1.7  # side of a sprite, in diameters of its object; parts of an object may lie beside it


@dataclass
class Sprite:
    """An object with its motion.

    Attributes:
        image: RGBA image of the object, in whose centre the object is. Alpha is 255 where the object is, otherwise 0.
        radius: radius of the object in the image in pixels.
        motion: the motion.
    """

    image: Image.Image
    radius: float
    motion: Motion

    def placed(
        self, time: float, size: tuple[int, int], pan: tuple[int, int] = (0, 0)
    ) -> tuple[tuple[slice, slice], Array, Array] | None:
        """Draw the object as it appears at a time.

        Args:
            time: time from 0 to 1.
            size: (height, width) of the frame in pixels.
            pan: rows and columns by which the camera moves the object.

        Returns:
            The rows and columns of a window in the frame, the `(h, w, 3)` RGB of the window from 0 to 1, and the share
            of each pixel that the object covers, `(h, w)`; None if the object is outside the frame.
        """
        height, width = size
        x, y = self.motion.position(time) + np.array([pan[1], pan[0]])
        radius = max(1.0, self.motion.size.at(time))
        reach = radius * MARGIN
        top, left = max(0, int(y - reach)), max(0, int(x - reach))
        bottom, right = min(height, int(y + reach) + 2), min(width, int(x + reach) + 2)
        if top >= bottom or left >= right:
            return None
        angle = self.motion.angle.at(time)
        zoom = self.radius / radius
        across = zoom / min(1.0, max(0.3, self.motion.stretch.at(time)))
        cos, sin = np.cos(angle), np.sin(angle)
        # From pixel centres of the window to those of the sprite: shift to the object's centre, rotate, scale, shift.
        matrix = np.array([[cos * zoom, sin * zoom], [-sin * across, cos * across]])
        shift = matrix @ [left - x, top - y] + self.image.width / 2
        window = self.image.transform(
            (right - left, bottom - top),
            Image.Transform.AFFINE,
            (*matrix[0], shift[0], *matrix[1], shift[1]),
            Image.Resampling.BILINEAR,
        )
        pixels: Array = np.asarray(window, dtype=np.float32) / np.float32(255)
        return (slice(top, bottom), slice(left, right)), pixels[..., :3], pixels[..., 3]


def draw_sprite(rng: Rng, shape: Shape, finish: Finish, motion: Motion) -> Sprite:
    """Draw an object.

    Args:
        rng: The random generator.
        shape: The shape in its unit frame.
        finish: The surface.
        motion: The motion. The sprite has details for the largest size of the motion.
    """
    largest = max(motion.size.at(time) for time in np.linspace(0, 1, 9))
    radius = max(4.0, largest * DETAIL)
    side = int(2 * radius * MARGIN) + 2
    canvas = Canvas(rng, side, side, finish.base)  # a ground of the object's colour, because edges mix with it
    canvas.add_object(shape, side / 2, side / 2, radius, finish, shadow=False)
    image = Image.fromarray((np.clip(canvas.image, 0, 1) * 255).astype(np.uint8))
    image.putalpha(Image.fromarray((canvas.labels > 0).astype(np.uint8) * 255))
    return Sprite(image, radius, motion)
