"""Where images may come from and how large they may be."""

from __future__ import annotations

from dataclasses import dataclass

from . import fetching


@dataclass(frozen=True)
class ImageLimits:
    """Where images may come from and how large they may be.

    Attributes:
        max_pixels: largest width times height; a larger image is rejected before it is decoded.
        max_side: largest width or height in pixels.
        max_bytes: largest encoded file.
        urls: whether images are fetched from URLs.
        hosts: hosts that may be asked, as `fetching.fetch` takes them.
        fetch_seconds: time limit for fetching one image, from connecting to the last byte.
        local_paths: whether paths of this machine, every other URL scheme that fsspec knows, and URLs of any host,
            private ones included, are accepted. Meant for tables that the operator wrote, such as batch jobs.
    """

    max_pixels: int = 100_000_000
    max_side: int = 65_535
    max_bytes: int = 256 * 2**20
    urls: bool = True
    hosts: tuple[str, ...] = (fetching.ANY_PUBLIC,)
    fetch_seconds: float = 30.0
    local_paths: bool = False
