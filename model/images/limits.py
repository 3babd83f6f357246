"""Limits on the size and the source of images."""

from __future__ import annotations

from dataclasses import dataclass

from . import fetching


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the size and the source of images.

    Attributes:
        max_pixels: maximum of width times height. A larger image is rejected before its pixels are decoded.
        max_side: maximum width or height in pixels.
        max_bytes: maximum size of the encoded file in bytes.
        urls: whether images are fetched from URLs.
        hosts: hosts from which images are fetched. `fetching.fetch` describes the form of an entry.
        fetch_seconds: timeout in seconds for fetching one image, from connecting to the last byte.
        local_paths: whether local paths, all URL schemes of fsspec, and URLs of private hosts are accepted. Set this
            only where the operator chooses the images, for example in batch jobs.
    """

    max_pixels: int = 100_000_000
    max_side: int = 65_535
    max_bytes: int = 256 * 2**20
    urls: bool = True
    hosts: tuple[str, ...] = (fetching.ANY_PUBLIC,)
    fetch_seconds: float = 30.0
    local_paths: bool = False

    def allow(self, size: tuple[int, int]) -> bool:
        """Return whether an image of `size` (height, width) is not empty and within the limits."""
        return min(size) >= 1 and max(size) <= self.max_side and size[0] * size[1] <= self.max_pixels
