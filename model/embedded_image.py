"""An image together with its embedding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .call import Call
from .errors import BadInput, kind
from .images import OpenedImage
from .prompts.parsing import MAX_COORDINATE
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

    @classmethod
    def from_features(
        cls, features: np.ndarray, shape: tuple[int, ...], size: tuple[int, int], model: str, key: str
    ) -> EmbeddedImage:
        """Wrap the feature map of an image. `Engine.from_features` describes the arguments and the error.

        Args:
            features: the feature map.
            shape: its shape for the model.
            size: (height, width) of the image in pixels.
            model: name of the checkpoint.
            key: the image's key.
        """
        numeric = features.dtype.kind in "fiu" and features.shape == shape
        if not numeric or not (np.abs(features) <= MAX_COORDINATE).all():
            raise BadInput("embeddings", f"finite numbers of shape {shape}", kind(features))
        return cls(Embedding((torch.from_numpy(features.astype(np.float32)),), size, model), key)

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
