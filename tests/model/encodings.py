"""Caches of image embeddings, for transformers' models and for those of this project, to save time in tests."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from sam_endpoint.model.segmenter import Embedding, Segmenter


def cache_encoder(model: Any) -> Any:
    """Make the image encoder of a transformers model return its earlier output for the same pixels."""
    encode, outputs = model.vision_encoder.forward, {}

    def forward(pixel_values: Tensor, **options: Any) -> Any:
        pixels = pixel_values.numpy().tobytes()
        if pixels not in outputs:
            outputs[pixels] = encode(pixel_values, **options)
        return copy(outputs[pixels])  # a SAM 2 changes the output

    model.vision_encoder.forward = forward
    return model


def cached_embedding(segmenter: Segmenter, image: np.ndarray) -> Embedding:
    """Return the embedding of an image, (height, width, 3) uint8, by a segmenter of this project."""
    return _cached_embedding(segmenter, image.tobytes(), image.shape)


@cache
def _cached_embedding(segmenter: Segmenter, pixels: bytes, shape: tuple[int, ...]) -> Embedding:
    return segmenter.embed([np.frombuffer(pixels, np.uint8).reshape(shape).copy()])[0]
