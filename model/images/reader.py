"""References to images, and the reader that turns a reference into bytes and pixels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol
from urllib.parse import unquote

import fsspec
import numpy as np

from ..call import UNTRACKED, Call
from ..errors import BadInput, kind
from . import fetching
from .decoding import COLUMN, decode, is_turned, memory_needed
from .limits import ImageLimits

EXPECTED = "base64 text of an image, an http(s) URL or image bytes"
WEB_SCHEMES = ("http://", "https://")
FILE_URL = "file:/"  # Spark writes one slash, others three
MAX_PATH = 4096  # characters
UPRIGHT = ".upright"  # behind the key of an image that is turned upright
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class ImageRef:
    """A reference to an image. Equal references name the same image, so a reference can be a dictionary key.

    Attributes:
        kind: how to read `value`.
        value: the encoded file (`content`), its base64 text (`base64`), a URL (`url`), a path or other fsspec URL
            (`path`), or the name of a cached image (`id`).
        upright: whether the EXIF orientation is applied; a cached image stays as it was encoded.
    """

    kind: Literal["content", "base64", "url", "path", "id"]
    value: str | bytes
    upright: bool = False

    @classmethod
    def content(cls, data: bytes, upright: bool = False) -> ImageRef:
        """Refer to an image by the bytes of its file."""
        return cls("content", data, upright)

    @classmethod
    def path(cls, path: str | os.PathLike[str], upright: bool = False) -> ImageRef:
        """Refer to an image by its path."""
        return cls("path", os.fspath(path), upright)

    @classmethod
    def id(cls, image_id: str) -> ImageRef:
        """Refer to a cached image by its `image_id`."""
        return cls("id", image_id)


class OpenedImage:
    """An image whose bytes are read and whose pixels are decoded on demand.

    Attributes:
        key: SHA-256 of the encoded file, the key of its embedding; `.upright` follows it if the pixels are turned.
        memory_needed: returns about how many bytes decoding allocates; raises BadInput for an image over the limits.
    """

    def __init__(self, key: str, decode_pixels: Callable[[Call], np.ndarray], memory: Callable[[], int]) -> None:
        self.key = key
        self.memory_needed = memory
        self._decode = decode_pixels
        self._pixels: np.ndarray | None = None

    def pixels(self, call: Call = UNTRACKED) -> np.ndarray:
        """Return the (height, width, 3) uint8 RGB pixels. Raises BadInput for a file that cannot be decoded."""
        if self._pixels is None:
            self._pixels = self._decode(call)
        return self._pixels

    def release(self) -> None:
        """Drop the decoded pixels; they are decoded again if they are needed again."""
        self._pixels = None


class ImageSource(Protocol):
    """What the Engine reads images with."""

    @property
    def limits(self) -> ImageLimits: ...

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Return the reference that a cell of the `image` column stands for."""

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read an image."""

    def download(self, url: str, call: Call = UNTRACKED, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the content of an http(s) URL."""


class ImageReader:
    """Reads images by reference, within limits. Safe to share between threads."""

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits or ImageLimits()

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Return the reference that a cell of the `image` column stands for.

        Args:
            value: bytes, base64 text, a data: URL or an http(s) URL; bytes may come as a list or array of numbers, and
                any of these in the struct `{"bytes", "path"}` of Hugging Face's data sets. Paths, and URLs of other
                schemes, are accepted where `limits.local_paths` is set.
            upright: whether the EXIF orientation is applied.

        Raises:
            BadInput: `value` is something else, or a URL of a scheme that is not accepted.
        """
        if isinstance(value, Mapping):
            content = value.get("bytes")
            value = value.get("path") if content is None else content
        data = _bytes_of(value)
        if data is not None:
            return ImageRef("content", data, upright)
        if not isinstance(value, str):
            raise BadInput(COLUMN, EXPECTED, kind(value))
        text = value.strip()
        scheme = text[:32].partition(":")[0].lower()
        if text.lower().startswith(WEB_SCHEMES):
            return ImageRef("url", text, upright)
        if scheme == "data":
            head, comma, content = text.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                raise BadInput(COLUMN, EXPECTED, "a data: URL that is not base64")
            return ImageRef("base64", content, upright)
        is_url = "://" in text[:32] or text[:6].lower() == FILE_URL
        if self.limits.local_paths and (is_url or (len(text) <= MAX_PATH and os.path.exists(text))):
            return ImageRef("path", text, upright)
        if is_url:
            word = f"scheme '{scheme}'" if scheme in fsspec.available_protocols() else "an unknown scheme"
            raise BadInput(COLUMN, EXPECTED, f"a URL of {word}, which is not allowed here")
        return ImageRef("base64", text, upright)

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read the bytes of an image; its pixels are decoded when they are asked for.

        Raises:
            BadInput: the image cannot be read or fetched, is empty, or is larger than the limits.
            Overloaded: memory is too short for a fetched image.
        """
        with call.stage("fetch"):
            data = self.read(ref, call)
            key = hashlib.sha256(data).hexdigest()
            upright = ref.upright and is_turned(data)
        key = key + UPRIGHT if upright else key
        return OpenedImage(key, partial(self._decode, data, upright), partial(memory_needed, data, self.limits))

    def read(self, ref: ImageRef, call: Call = UNTRACKED) -> bytes:
        """Return the encoded bytes of an image. Raises as `open` does."""
        match ref.kind:
            case "content":
                data = ref.value if isinstance(ref.value, bytes) else b""
            case "base64":
                data = self._from_base64(str(ref.value))
            case "url":
                data = self.download(str(ref.value), call)
            case "path":
                data = self._from_path(str(ref.value))
            case "id":
                raise BadInput(COLUMN, EXPECTED, "only an image_id")
        if not data:
            raise BadInput(COLUMN, EXPECTED, "an empty image")
        if len(data) > self.limits.max_bytes:
            raise BadInput(COLUMN, f"an image file of at most {self.limits.max_bytes} bytes", f"{len(data)} bytes")
        return data

    def _decode(self, data: bytes, upright: bool, call: Call) -> np.ndarray:
        with call.stage("decode"):
            return decode(data, self.limits, upright)

    def download(self, url: str, call: Call = UNTRACKED, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the content of an http(s) URL, within the limits.

        Args:
            url: the URL.
            call: holds the memory of the content.
            headers: further headers of the request; a redirect to another server does not get them.

        Raises:
            BadInput: URLs are switched off, the host is not allowed, or there is no answer with status 200 to 299.
            Overloaded: memory is too short.
        """
        if not self.limits.urls:
            raise BadInput(COLUMN, "base64 text of an image or image bytes", "a URL, and these are switched off here")
        hosts = fetching.ANY if self.limits.local_paths else self.limits.hosts
        return fetching.fetch(url, hosts, self.limits.max_bytes, self.limits.fetch_seconds, call.keep, headers)

    def _from_path(self, path: str) -> bytes:
        try:
            if path[:6].lower() == FILE_URL:
                path = fsspec.core.strip_protocol(path)
                path = path if os.path.exists(path) else unquote(path)  # Spark escapes some of its URLs
            with fsspec.open(path, "rb") as file:
                data: bytes = file.read(self.limits.max_bytes + 1)
                return data
        except FileNotFoundError:
            raise BadInput(COLUMN, "a file that exists", "a path where there is none") from None
        except (OSError, ValueError, ImportError) as error:
            raise BadInput(COLUMN, "a file that can be read", type(error).__name__) from None

    def _from_base64(self, text: str) -> bytes:
        try:
            return _decode_base64(text)
        except (binascii.Error, UnicodeEncodeError):
            got = f"{kind(text)} that is not base64"
            raise BadInput(COLUMN, EXPECTED, got + (" and not a file" if self.limits.local_paths else "")) from None


def _decode_base64(text: str) -> bytes:
    """Decode standard or URL-safe base64, with or without line breaks and padding. Raises binascii.Error."""
    data = "".join(text.split()).encode("ascii")
    if b"-" in data or b"_" in data:
        data = data.translate(_URL_SAFE)
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _bytes_of(value: Any) -> bytes | None:
    """Return the bytes of a value that is bytes, or a list or array of numbers from 0 to 255; None for others."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.uint8:
        return value.tobytes()
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1):
        try:
            return bytes(list(value))
        except (TypeError, ValueError):
            return None
    return None
