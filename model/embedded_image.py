"""An image together with its embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .call import Call
from .errors import BadInput
from .images import OpenedImage
from .segmenter import Embedding


@dataclass(frozen=True)
class EmbeddedImage:
    """An image that is ready to be segmented.

    Attributes:
        embedding: the output of the image encoder.
        key: the key of the embedding in the cache. It is the SHA-256 of the image file. `.upright` follows if the EXIF
            orientation changes the pixels. The caller of `from_features` chooses another key, which may be empty.
        image: the image file; None for a cached image that was found by its id, and for a computed embedding.
    """

    embedding: Embedding
    key: str
    image: OpenedImage | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.embedding.size

    def pixels(self, call: Call) -> np.ndarray:
        """Return the pixels of the image file. Raises BadInput if there is none."""
        if self.image is None:
            raise BadInput(
                "image", "the image itself, because crop_n_layers above 0 needs its pixels", "only an image_id"
            )
        return self.image.pixels(call)
