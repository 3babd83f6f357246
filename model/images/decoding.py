"""Decode image files to RGB arrays, within limits."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import BadInput
from .greys import stretch_to_8_bits
from .limits import ImageLimits

COLUMN = "image"  # named in error messages
# Formats that cameras, screens, browsers and microscopes write. Pillow reads more formats; users do not need them, and
# each decoder is a target for attacks.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
GDAL_NODATA = 42113  # TIFF tag with the value of pixels without data, as text
MIN_BLOCK = 2**22  # pixels; every TIFF may have tiles of this size
BYTES_PER_PIXEL = 12  # Pillow's own pixels, their conversion to RGB, and the array
MAX_SLOW_BYTES = 2**20  # maximum size of a file that Pillow decodes in Python; takes half a second


# The transposition that turns the pixels of each EXIF orientation upright (TIFF 6.0 specification, tag 274).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A PNG that holds none of these has no orientation. The search is cheap, while Pillow decodes the whole image to look
# for an orientation behind the pixels.
_PNG_ORIENTATIONS = (b"eXIf", b"type exif", b"tiff:Orientation")


def decode(data: bytes, limits: ImageLimits, upright: bool = False) -> np.ndarray:
    """Decode an image file.

    An animation is decoded to its first frame. Grey values of more than 8 bits are stretched by
    `greys.stretch_to_8_bits`.

    Args:
        data: the encoded file, in one of FORMATS.
        limits: limits whose `max_pixels` and `max_side` are checked before the pixels are decoded.
        upright: whether to apply the EXIF orientation. Pillow always applies the orientation of a TIFF.

    Returns:
        The (height, width, 3) uint8 RGB pixels.

    Raises:
        BadInput: `data` is not an image in one of FORMATS, is broken, or exceeds the limits.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("RGB", (3, 2), (255, 0, 0)).save(buffer, "PNG")
        >>> pixels = decode(buffer.getvalue(), ImageLimits())
        >>> pixels.shape, pixels[0, 0].tolist()
        ((2, 3, 3), [255, 0, 0])
    """
    expected = "an image that Pillow can read"
    try:
        with _opened(data) as image:
            _check(image, data, limits)
            turn = _TURNS.get(_orientation(image, data)) if upright else None
            rgb = _to_rgb(image)
            return np.asarray(rgb if turn is None else rgb.transpose(turn))
    except UnidentifiedImageError:
        raise BadInput(COLUMN, expected, f"{len(data)} bytes of no known image format") from None
    except Image.DecompressionBombError:
        raise BadInput(
            COLUMN, f"an image of at most {limits.max_pixels} pixels", "an image with far more pixels"
        ) from None
    except BadInput:
        raise
    except MemoryError:
        raise BadInput(COLUMN, "an image that fits into the available memory", f"{len(data)} bytes") from None
    except Exception:  # Pillow's decoders raise many types of exceptions for broken files
        raise BadInput(COLUMN, expected, f"a broken image ({len(data)} bytes)") from None


def memory_needed(data: bytes, limits: ImageLimits) -> int:
    """Estimate how many bytes `decode` allocates. Only the file's header is read.

    Args:
        data: the encoded file.
        limits: as in `decode`.

    Raises:
        BadInput: the image exceeds the limits.
    """
    try:
        with _opened(data) as image:
            _check(image, data, limits)
            return BYTES_PER_PIXEL * image.width * image.height + 4 * _block(image)
    except BadInput:
        raise
    except Exception:  # not an image; `decode` reports it
        return len(data)


def _check(image: Image.Image, data: bytes, limits: ImageLimits) -> None:
    """Raise BadInput for an image that is too large or too slow to decode."""
    if max(image.size) > limits.max_side:
        expected = f"an image of at most {limits.max_side} pixels a side"
        raise BadInput(COLUMN, expected, f"{image.width} x {image.height} pixels")
    pixels = image.width * image.height
    if pixels > limits.max_pixels:
        expected = f"an image of at most {limits.max_pixels} pixels"
        raise BadInput(COLUMN, expected, f"{image.width} x {image.height} = {pixels} pixels")
    if (block := _block(image)) > max(MIN_BLOCK, 4 * pixels):
        expected = f"a TIFF whose tiles have at most {max(MIN_BLOCK, 4 * pixels)} pixels"
        raise BadInput(COLUMN, expected, f"tiles of {block} pixels")
    codecs = {tile.codec_name for tile in getattr(image, "tile", [])}
    if len(data) > MAX_SLOW_BYTES and codecs & set(Image.DECODERS):
        expected = f"at most {MAX_SLOW_BYTES} bytes of a plain or 16-bit PPM or a run-length encoded BMP"
        raise BadInput(COLUMN, expected, f"{len(data)} bytes")


def _block(image: Image.Image) -> int:
    """Return the number of pixels in a tile of a TIFF, or 0 for images without tiles.

    The codec allocates a whole tile even if the image is smaller.
    """
    tags = getattr(image, "tag_v2", {})
    try:
        return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    except (TypeError, ValueError):
        return 0


def is_turned(data: bytes) -> bool:
    """Return whether `decode` gives other pixels with `upright` than without. Only the file's header is read."""
    try:
        with _opened(data) as image:
            return _orientation(image, data) in _TURNS
    except Exception:  # not an image; `decode` reports it
        return False


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns about large images, which `_check` rejects if they exceed the limits. It also warns about broken
        # metadata, which this project ignores.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) that Pillow has not applied itself; 1 means upright."""
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATIONS)):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises many types of exceptions for broken metadata
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        nodata = getattr(image, "tag_v2", {}).get(GDAL_NODATA)
        return Image.fromarray(stretch_to_8_bits(np.asarray(image), nodata)).convert("RGB")
    return image.convert("RGB")
