"""Images encoded once, by transformers' models and by ours, however many prompts they are asked."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from sam_endpoint.model.segmenter import Embedding, Segmenter


def remembered(model: Any) -> Any:
    """A transformers model whose image encoder answers pixels it has had before as it did then."""
    encode, answers = model.vision_encoder.forward, {}

    def forward(pixel_values: Tensor, **options: Any) -> Any:
        pixels = pixel_values.numpy().tobytes()
        if pixels not in answers:
            answers[pixels] = encode(pixel_values, **options)
        return copy(answers[pixels])  # for a SAM 2 writes into it

    model.vision_encoder.forward = forward
    return model


def embedding(segmenter: Segmenter, image: np.ndarray) -> Embedding:
    """Our embedding of an image (height, width, 3)."""
    return _embedding(segmenter, image.tobytes(), image.shape)


@cache
def _embedding(segmenter: Segmenter, pixels: bytes, shape: tuple[int, ...]) -> Embedding:
    return segmenter.embed([np.frombuffer(pixels, np.uint8).reshape(shape).copy()])[0]
