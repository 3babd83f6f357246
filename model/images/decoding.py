"""Encoded images to RGB arrays."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import BadInput
from .limits import ImageLimits

COLUMN = "image"
# What cameras, screens, browsers and microscopes write. Pillow reads more formats, which attackers try and users do not
# need.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")


def decode(data: bytes, limits: ImageLimits) -> np.ndarray:
    """Decode an image as stored: EXIF orientation is not applied.

    The first frame of an animation is decoded. 16-bit grey values are scaled to 8 bits, not clipped.

    Args:
        data: the encoded file, in one of FORMATS.
        limits: `max_pixels` and `max_side` are checked before the pixels are decoded.

    Returns:
        The (height, width, 3) uint8 RGB pixels.

    Raises:
        BadInput: `data` is not an image of FORMATS, is broken, or is larger than the limits.
    """
    expected = "an image that Pillow can read"
    try:
        with warnings.catch_warnings():
            # Pillow warns about large images; the limit below decides instead.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if max(image.size) > limits.max_side:
                    raise BadInput(
                        COLUMN,
                        f"an image of at most {limits.max_side} pixels a side",
                        f"{image.width} x {image.height} pixels",
                    )
                pixels = image.width * image.height
                if pixels > limits.max_pixels:
                    raise BadInput(
                        COLUMN,
                        f"an image of at most {limits.max_pixels} pixels",
                        f"{image.width} x {image.height} = {pixels} pixels",
                    )
                return np.asarray(_to_rgb(image))
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        deep = np.nan_to_num(np.asarray(image))
        # These modes do not store a range of values: the narrowest usual range that holds them is taken.
        top = next((limit for limit in _RANGES[image.mode] if deep.max() <= limit), deep.max())
        grey = np.empty(deep.shape, np.uint8)
        for row, values in enumerate(
            deep
        ):  # row by row: the whole image would need three arrays of eight bytes a pixel
            grey[row] = np.clip(values.astype(np.float64) / top, 0, 1) * 255
        return Image.fromarray(grey).convert("RGB")
    return image.convert("RGB")


_RANGES = {"I": (255, 65535, 2**31 - 1), "F": (1.0, 255.0, 65535.0)}
