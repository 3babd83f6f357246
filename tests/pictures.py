"""Images that the tests draw, and comparisons of masks and of answers."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFilter

# The transposition of an upright image to the stored pixels, for each EXIF orientation. A viewer does the reverse.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def to_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image as a file.

    Args:
        image: image to encode.
        kind: Pillow's name of the file format.
        **options: options of Pillow's `save`.

    Returns:
        The content of the file.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def to_text(data: bytes) -> str:
    """Encode bytes as base64 text."""
    return base64.b64encode(data).decode("ascii")


def turned(upright: Image.Image, orientation: int, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image that is stored otherwise, with the EXIF orientation that turns it upright.

    Args:
        upright: image that viewers show.
        orientation: a key of STORED.
        kind: Pillow's name of the file format.
        options: Pillow's options of the file format.
    """
    transposition = STORED[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = upright if transposition is None else upright.transpose(transposition)
    return to_bytes(stored, kind, exif=exif, **options)


def disc(width: int = 240, height: int = 160) -> tuple[bytes, np.ndarray]:
    """Draw a blue disc on a pale table.

    Returns:
        The image as PNG bytes, and the true mask of the disc, (height, width) bool.
    """
    box = (70, 40, 150, 120)
    image = Image.new("RGB", (width, height), (214, 204, 190))
    ImageDraw.Draw(image).ellipse(box, fill=(52, 86, 158))
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return to_bytes(image.filter(ImageFilter.GaussianBlur(0.7))), np.asarray(mask) > 0


def clutter(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Draw soft and hard detail at every scale. Returns a (height, width, 3) uint8 image."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        r = int(rng.integers(1, max(2, max(width, height) // 6)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    noisy = np.asarray(image).astype(np.int16) + rng.integers(-20, 21, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


class Score(float):
    """A float that equals every float within 1e-4.

    The last bits of a score depend on the other prompts of its batch.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(float(self) - float(other)) <= 1e-4

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # equality with a tolerance is not transitive


def tolerant(answer: Any) -> Any:
    """Return a copy of an answer whose floats compare with a tolerance of 1e-4."""
    if isinstance(answer, dict):
        return {name: tolerant(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [tolerant(value) for value in answer]
    return Score(answer) if isinstance(answer, float) else answer


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two bool masks, or 1 if both masks are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
