"""Read images by reference: parse references, read or fetch the bytes, and decode the pixels on demand."""

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
FILE_URL = "file:/"  # Spark writes one slash, other tools write three
MAX_PATH = 4096  # characters
UPRIGHT = ".upright"  # suffix of the key of an image to which the EXIF orientation is applied
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class ImageRef:
    """A reference to an image. Equal references name the same image, and a reference can be a dictionary key.

    Attributes:
        kind: the form of `value`.
        value: the encoded file (kind `content`), its base64 text (`base64`), an http(s) URL (`url`), a path or other
            fsspec URL (`path`), or the `image_id` of a cached image (`id`).
        upright: whether the EXIF orientation is applied. Has no effect on cached images (`id`), because their
            embedding is already computed.

    Example:
        >>> ImageRef.path("samples/coffee.jpg")
        ImageRef(kind='path', value='samples/coffee.jpg', upright=False)
    """

    kind: Literal["content", "base64", "url", "path", "id"]
    value: str | bytes
    upright: bool = False

    @classmethod
    def content(cls, data: bytes, upright: bool = False) -> ImageRef:
        """Refer to an image by the bytes of its encoded file."""
        return cls("content", data, upright)

    @classmethod
    def path(cls, path: str | os.PathLike[str], upright: bool = False) -> ImageRef:
        """Refer to an image by its path or fsspec URL."""
        return cls("path", os.fspath(path), upright)

    @classmethod
    def id(cls, image_id: str) -> ImageRef:
        """Refer to a cached image by its `image_id`."""
        return cls("id", image_id)


class OpenedImage:
    """An image file whose bytes have been read. Its pixels are decoded on demand.

    Args:
        key: the key of the image's embedding in caches: the SHA-256 of the encoded file, followed by `.upright` if the
            EXIF orientation changes the pixels.
        decode_pixels: returns the (height, width, 3) uint8 RGB pixels.
        memory: estimates how many bytes decoding allocates; raises BadInput if the image exceeds the limits.

    Attributes:
        memory_needed: the function `memory`.
    """

    def __init__(self, key: str, decode_pixels: Callable[[Call], np.ndarray], memory: Callable[[], int]) -> None:
        self.key = key
        self.memory_needed = memory
        self._decode = decode_pixels
        self._pixels: np.ndarray | None = None

    def pixels(self, call: Call = UNTRACKED) -> np.ndarray:
        """Return the (height, width, 3) uint8 RGB pixels.

        Raises:
            BadInput: the file cannot be decoded.
            ClientDisconnected, DeadlineExceeded: as `Call.stage`.
        """
        if self._pixels is None:
            self._pixels = self._decode(call)
        return self._pixels

    def release(self) -> None:
        """Free the decoded pixels. `pixels` decodes them again."""
        self._pixels = None


class ImageSource(Protocol):
    """The interface through which an Engine reads images; `ImageReader` implements it."""

    @property
    def limits(self) -> ImageLimits:
        """Limits on images."""

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Parse a cell of the `image` column, like `ImageReader.reference`."""

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read the bytes of an image, like `ImageReader.open`."""


class ImageReader:
    """Reads images by reference, within limits. Safe to share between threads.

    Args:
        limits: limits on the size and the source of images.

    Example:
        >>> reader = ImageReader(ImageLimits(local_paths=True))
        >>> image = reader.open(reader.reference("samples/coffee.jpg"))
        >>> image.pixels().shape
        (400, 600, 3)
    """

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits or ImageLimits()

    def reference(self, value: object, upright: bool = False) -> ImageRef:
        """Parse a cell of the `image` column. The image itself is not read.

        Args:
            value: bytes, base64 text, a data: URL or an http(s) URL. Bytes may also be a list or array of numbers from
                0 to 255. A dictionary with the keys `bytes` and `path`, as in Hugging Face's data sets, may hold any of
                these. If `limits.local_paths` is set, local paths and other fsspec URLs are accepted too.
            upright: whether the EXIF orientation is applied.

        Raises:
            BadInput: `value` has another type, or is a URL whose scheme is not accepted.
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
            raise BadInput(COLUMN, EXPECTED, f"a URL with {word}, which is not allowed")
        return ImageRef("base64", text, upright)

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read the bytes of an image. The pixels are decoded later, by `OpenedImage.pixels`.

        Args:
            ref: reference to the image, of any kind except `id`.
            call: context of the request.

        Raises:
            BadInput: the image cannot be read or fetched, is empty, or its file is larger than `limits.max_bytes`.
            Overloaded: there is too little memory for a fetched image.
            ClientDisconnected, DeadlineExceeded: as `Call.stage`.
        """
        with call.stage("fetch"):
            data = self.read(ref, call)
            key = hashlib.sha256(data).hexdigest()
            upright = ref.upright and is_turned(data)
        key = key + UPRIGHT if upright else key
        return OpenedImage(key, partial(self._decode, data, upright), partial(memory_needed, data, self.limits))

    def read(self, ref: ImageRef, call: Call = UNTRACKED) -> bytes:
        """Return the bytes of the encoded file. Args and exceptions are those of `open`."""
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
            call: context of the request. It holds memory for the content.
            headers: further headers of the request; a redirect to another server does not get them.

        Raises:
            BadInput: URLs are switched off, the host is not allowed, or there is no answer with status 200 to 299.
            Overloaded: there is too little memory for the content.
        """
        if not self.limits.urls:
            raise BadInput(
                COLUMN, "base64 text of an image or image bytes", "a URL, but fetching images from URLs is disabled"
            )
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
            raise BadInput(COLUMN, "a file that exists", "a path at which no file exists") from None
        except (OSError, ValueError, ImportError) as error:
            raise BadInput(COLUMN, "a readable file", type(error).__name__) from None

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
