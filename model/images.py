"""Bytes, base64 and URLs to RGB arrays; what may be fetched and how large it may be."""

from __future__ import annotations

import base64
import binascii
import io
import os
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass

import fsspec
import numpy as np
from PIL import Image, UnidentifiedImageError

from model.errors import BadInput, kind

COLUMN = "image"
EXPECTED = "base64 text of an image, an http(s) URL or image bytes"
WEB = ("http://", "https://")
LONGEST_PATH = 4096


@dataclass(frozen=True)
class ImageLimits:
    """Where images may come from and how large they may be.

    max_pixels: width times height; a larger image is refused before it is decoded.
    max_bytes: size of the encoded file.
    fetch_seconds: how long a server of a URL may stay silent.
    local_paths: also take paths of this machine and every other URL scheme that fsspec knows (batch jobs do).
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 2**20
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

    16-bit greys are scaled to 8 bits, not clipped. Raises BadInput when `data` is not an image Pillow reads, is
    broken, or has more pixels than the limits allow.
    """
    expected = "an image that Pillow can read"
    try:
        with warnings.catch_warnings():
            # Pillow warns about large images; the limit below decides instead.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
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
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError, MemoryError) as error:
        if isinstance(error, BadInput):
            raise
        # Pillow's decoders raise all of these on broken files.
        raise BadInput(COLUMN, expected, f"a broken image ({len(data)} bytes)") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        # No range is stored with these modes: the narrowest usual one that holds the values is taken.
        top = next((limit for limit in _RANGES[image.mode] if values.max() <= limit), values.max())
        return Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


_RANGES = {"I": (255, 65535, 2**31 - 1), "F": (1.0, 255.0, 65535.0)}


def _read_text(text: str, limits: ImageLimits) -> bytes:
    if text.lower().startswith(WEB):
        return _fetch(text, limits)
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


def _fetch(url: str, limits: ImageLimits) -> bytes:
    expected = "a URL that answers with an image"
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "segment-anything-endpoint"})
        with opener.open(request, timeout=limits.fetch_seconds) as response:
            return response.read(limits.max_bytes + 1)
    except urllib.error.HTTPError as error:
        raise BadInput(COLUMN, expected, f"HTTP status {error.code}") from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise BadInput(COLUMN, expected, f"no answer ({type(error).__name__})") from None
    except Exception as error:  # http.client raises its own family on malformed answers and addresses
        raise BadInput(COLUMN, expected, f"a broken answer ({type(error).__name__})") from None


def _open(path: str, limits: ImageLimits) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError:
        raise BadInput(COLUMN, "a file that exists", "a path where there is none") from None
    except (OSError, ValueError, ImportError) as error:
        raise BadInput(COLUMN, "a file that can be read", type(error).__name__) from None
