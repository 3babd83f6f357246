"""Encoded images to RGB arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from ..errors import BadInput
from .greys import to_8_bits
from .limits import ImageLimits

COLUMN = "image"
# What cameras, screens, browsers and microscopes write. Pillow reads more formats, which attackers try and users do not
# need.
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF tags
MIN_BLOCK = 2**22  # pixels of a tile that any TIFF may have
BYTES_A_PIXEL = 12  # Pillow's own pixels, their conversion to RGB, and the array
MAX_SLOW_BYTES = 2**20  # of a file that Pillow decodes in Python, half a second
GDAL_NODATA = 42113  # the TIFF tag with the value of pixels without data, as text
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")


# How the pixels of each EXIF orientation are turned upright (the TIFF 6.0 specification, tag 274).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where a PNG may state an orientation. Pillow decodes the whole image to find one behind the pixels.
_PNG_ORIENTATIONS = (b"eXIf", b"type exif", b"tiff:Orientation")


def decode(data: bytes, limits: ImageLimits, upright: bool = False) -> np.ndarray:
    """Decode an image.

    The first frame of an animation is decoded. Greys of more than 8 bits are stretched, as `greys.to_8_bits` describes.

    Args:
        data: the encoded file, in one of FORMATS.
        limits: `max_pixels` and `max_side` are checked before the pixels are decoded.
        upright: whether to apply the EXIF orientation. Pillow always applies that of a TIFF.

    Returns:
        The (height, width, 3) uint8 RGB pixels.

    Raises:
        BadInput: `data` is not an image of FORMATS, is broken, or is larger than the limits.
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
        raise BadInput(COLUMN, f"an image of at most {limits.max_pixels} pixels", "many more pixels") from None
    except BadInput:
        raise
    except MemoryError:
        raise BadInput(COLUMN, "an image that can be decoded in the memory there is", f"{len(data)} bytes") from None
    except Exception:  # Pillow's decoders raise many types of exceptions for broken files
        raise BadInput(COLUMN, expected, f"a broken image ({len(data)} bytes)") from None


def memory_needed(data: bytes, limits: ImageLimits) -> int:
    """Return about how many bytes `decode` allocates. Only the file's head is read; raises BadInput for its limits."""
    try:
        with _opened(data) as image:
            _check(image, data, limits)
            return BYTES_A_PIXEL * image.width * image.height + 4 * _block(image)
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
    """Return the pixels of a TIFF's tile, which the codec allocates whole however small the image is; 0 without one."""
    tags = getattr(image, "tag_v2", {})
    try:
        return int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
    except (TypeError, ValueError):
        return 0


def is_turned(data: bytes) -> bool:
    """Return whether the pixels of an image differ between `upright` and stored; only the file's head is read."""
    try:
        with _opened(data) as image:
            return _orientation(image, data) in _TURNS
    except Exception:  # not an image; `decode` reports it
        return False


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # Pillow warns about large images, for which the limits decide, and about broken metadata, which is ignored.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the orientation that Pillow leaves to be applied, in EXIF's numbers; 1 for none."""
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATIONS)):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's EXIF reader raises many types of exceptions for broken metadata
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        nodata = getattr(image, "tag_v2", {}).get(GDAL_NODATA)
        return Image.fromarray(to_8_bits(np.asarray(image), nodata)).convert("RGB")
    return image.convert("RGB")
