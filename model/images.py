"""Bytes, base64 and URLs to RGB arrays; what may be fetched and how large it may be."""

from __future__ import annotations

import base64
import binascii
import io
import os
import warnings
from dataclasses import dataclass

import fsspec
import numpy as np
from PIL import Image, UnidentifiedImageError

from model import fetching
from model.errors import BadInput, kind

COLUMN = "image"
EXPECTED = "base64 text of an image, an http(s) URL or image bytes"
# What cameras, screens, browsers and microscopes write. Pillow knows more, which nobody needs and attackers try.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
WEB = ("http://", "https://")
LONGEST_PATH = 4096


@dataclass(frozen=True)
class ImageLimits:
    """Where images may come from and how large they may be.

    max_pixels, max_side: width times height, and the longer of them; a larger image is refused before it is decoded.
    max_bytes: size of the encoded file.
    urls: whether images are fetched at all; hosts: from where, as `fetching.fetch` takes them.
    fetch_seconds: how long fetching one image may take, from the connection to the last byte.
    local_paths: also take paths of this machine, every other URL scheme that fsspec knows, and URLs of any host, the
    private ones too: for tables that the operator has made (batch jobs do).
    """

    max_pixels: int = 100_000_000
    max_side: int = 65_535
    max_bytes: int = 256 * 2**20
    urls: bool = True
    hosts: tuple[str, ...] = (fetching.ANY_PUBLIC,)
    fetch_seconds: float = 30.0
    local_paths: bool = False


def read(source: object, limits: ImageLimits) -> bytes:
    """The encoded bytes of an image (PNG, JPEG, ...) that came as bytes, base64 text, a data: URL or a URL.

    Raises BadInput when `source` is none of these, cannot be fetched, or is larger than the limits.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, str):
        data = _read_text(source.strip(), limits)
    else:
        raise BadInput(COLUMN, EXPECTED, kind(source))
    if not data:
        raise BadInput(COLUMN, EXPECTED, "an empty image")
    if len(data) > limits.max_bytes:
        raise BadInput(COLUMN, f"an image file of at most {limits.max_bytes} bytes", f"{len(data)} bytes")
    return data


def decode(data: bytes, limits: ImageLimits) -> np.ndarray:
    """An encoded image as an RGB array, (height, width, 3) uint8, as stored: EXIF orientation is not applied.

    Of an animation, the first picture. 16-bit greys are scaled to 8 bits, not clipped. Raises BadInput when `data` is
    not an image of FORMATS, is broken, or larger than the limits allow.
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
    except Exception:  # on broken files each of Pillow's decoders raises what it likes
        raise BadInput(COLUMN, expected, f"a broken image ({len(data)} bytes)") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        deep = np.nan_to_num(np.asarray(image))
        # No range is stored with these modes: the narrowest usual one that holds the values is taken.
        top = next((limit for limit in _RANGES[image.mode] if deep.max() <= limit), deep.max())
        grey = np.empty(deep.shape, np.uint8)
        for row, values in enumerate(deep):  # a row at a time: in one go it would take eight bytes a pixel, thrice
            grey[row] = np.clip(values.astype(np.float64) / top, 0, 1) * 255
        return Image.fromarray(grey).convert("RGB")
    return image.convert("RGB")


_RANGES = {"I": (255, 65535, 2**31 - 1), "F": (1.0, 255.0, 65535.0)}


def _read_text(text: str, limits: ImageLimits) -> bytes:
    if text.lower().startswith(WEB):
        if not limits.urls:
            raise BadInput(COLUMN, "base64 text of an image or image bytes", "a URL, and these are switched off here")
        hosts = fetching.ANY if limits.local_paths else limits.hosts
        return fetching.fetch(text, hosts, limits.max_bytes, limits.fetch_seconds)
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise BadInput(COLUMN, EXPECTED, "a data: URL that is not base64")
    elif limits.local_paths and ("://" in text[:32] or (len(text) <= LONGEST_PATH and os.path.exists(text))):
        return _open(text, limits)
    elif "://" in text[:32]:
        raise BadInput(COLUMN, EXPECTED, f"a URL of scheme '{text.partition('://')[0]}', which is not allowed here")
    try:
        return base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        got = f"{kind(text)} that is not base64"
        raise BadInput(COLUMN, EXPECTED, got + (" and not a file" if limits.local_paths else "")) from None


def _open(path: str, limits: ImageLimits) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise BadInput(COLUMN, "a file that exists", "a path where there is none") from None
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(COLUMN, "a file that can be read", type(error).__name__) from None
