"""References to images, and the reader that turns a reference into bytes and pixels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import fsspec
import numpy as np

from ..call import UNTRACKED, Call
from ..errors import BadInput, kind
from . import fetching
from .decoding import COLUMN, decode
from .limits import ImageLimits

EXPECTED = "base64 text of an image, an http(s) URL or image bytes"
WEB_SCHEMES = ("http://", "https://")
MAX_PATH = 4096  # characters


@dataclass(frozen=True)
class ImageRef:
    """A reference to an image. Equal references name the same image, so a reference can be a dictionary key.

    Attributes:
        kind: how to read `value`.
        value: the encoded file (`content`), its base64 text (`base64`), a URL (`url`), a path or other fsspec URL
            (`path`), or the name of a cached image (`id`).
    """

    kind: Literal["content", "base64", "url", "path", "id"]
    value: str | bytes

    @classmethod
    def content(cls, data: bytes) -> ImageRef:
        """Refer to an image by the bytes of its file."""
        return cls("content", data)

    @classmethod
    def path(cls, path: str | os.PathLike[str]) -> ImageRef:
        """Refer to an image by its path."""
        return cls("path", os.fspath(path))

    @classmethod
    def id(cls, image_id: str) -> ImageRef:
        """Refer to a cached image by its `image_id`."""
        return cls("id", image_id)


class OpenedImage:
    """An image whose bytes are read and whose pixels are decoded on demand.

    Attributes:
        key: SHA-256 of the encoded file, the key of its embedding.
    """

    def __init__(self, key: str, decode_pixels: Callable[[Call], np.ndarray]) -> None:
        self.key = key
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

    def reference(self, value: object) -> ImageRef:
        """Return the reference that a cell of the `image` column stands for."""

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read an image."""


class ImageReader:
    """Reads images by reference, within limits. Safe to share between threads."""

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits or ImageLimits()

    def reference(self, value: object) -> ImageRef:
        """Return the reference that a cell of the `image` column stands for: bytes, base64 text, or a URL.

        Paths, and URLs of other schemes than http and https, are accepted where `limits.local_paths` is set.

        Raises:
            BadInput: `value` is neither text nor bytes, or a URL of a scheme that is not accepted.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            return ImageRef.content(bytes(value))
        if not isinstance(value, str):
            raise BadInput(COLUMN, EXPECTED, kind(value))
        text = value.strip()
        if text.lower().startswith(WEB_SCHEMES):
            return ImageRef("url", text)
        if text[:5].lower() == "data:":
            head, comma, content = text.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                raise BadInput(COLUMN, EXPECTED, "a data: URL that is not base64")
            return ImageRef("base64", content)
        if self.limits.local_paths and ("://" in text[:32] or (len(text) <= MAX_PATH and os.path.exists(text))):
            return ImageRef("path", text)
        if "://" in text[:32]:
            raise BadInput(COLUMN, EXPECTED, f"a URL of scheme '{text.partition('://')[0]}', which is not allowed here")
        return ImageRef("base64", text)

    def open(self, ref: ImageRef, call: Call = UNTRACKED) -> OpenedImage:
        """Read the bytes of an image; its pixels are decoded when they are asked for.

        Raises:
            BadInput: the image cannot be read or fetched, is empty, or is larger than the limits.
        """
        with call.stage("fetch"):
            data = self.read(ref)
            key = hashlib.sha256(data).hexdigest()
        return OpenedImage(key, partial(self._decode, data))

    def read(self, ref: ImageRef) -> bytes:
        """Return the encoded bytes of an image. Raises BadInput as `open` does."""
        match ref.kind:
            case "content":
                data = ref.value if isinstance(ref.value, bytes) else b""
            case "base64":
                data = self._from_base64(str(ref.value))
            case "url":
                data = self._fetch(str(ref.value))
            case "path":
                data = self._from_path(str(ref.value))
            case "id":
                raise BadInput(COLUMN, EXPECTED, "only an image_id")
        if not data:
            raise BadInput(COLUMN, EXPECTED, "an empty image")
        if len(data) > self.limits.max_bytes:
            raise BadInput(COLUMN, f"an image file of at most {self.limits.max_bytes} bytes", f"{len(data)} bytes")
        return data

    def _decode(self, data: bytes, call: Call) -> np.ndarray:
        with call.stage("decode"):
            return decode(data, self.limits)

    def _fetch(self, url: str) -> bytes:
        if not self.limits.urls:
            raise BadInput(COLUMN, "base64 text of an image or image bytes", "a URL, and these are switched off here")
        hosts = fetching.ANY if self.limits.local_paths else self.limits.hosts
        return fetching.fetch(url, hosts, self.limits.max_bytes, self.limits.fetch_seconds)

    def _from_path(self, path: str) -> bytes:
        try:
            with fsspec.open(path, "rb") as file:
                data: bytes = file.read(self.limits.max_bytes + 1)
                return data
        except FileNotFoundError:
            raise BadInput(COLUMN, "a file that exists", "a path where there is none") from None
        except (OSError, ValueError, ImportError) as error:
            raise BadInput(COLUMN, "a file that can be read", type(error).__name__) from None

    def _from_base64(self, text: str) -> bytes:
        try:
            return base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            got = f"{kind(text)} that is not base64"
            raise BadInput(COLUMN, EXPECTED, got + (" and not a file" if self.limits.local_paths else "")) from None
