"""The values that a segmenter takes and returns: embeddings, requests and segmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .prompts import Prompt


@dataclass(frozen=True)
class Embedding:
    """The output of the image encoder for one image. Prompts are decoded on it without the image.

    Attributes:
        features: feature maps, each (1, channels, height, width) float32.
        size: (height, width) of the image in pixels.
        model: name of the checkpoint whose encoder computed the features.
    """

    features: tuple[Tensor, ...]
    size: tuple[int, int]
    model: str

    @property
    def nbytes(self) -> int:
        """Size of the features in bytes."""
        return sum(feature.numel() * feature.element_size() for feature in self.features)

    @property
    def device(self) -> torch.device:
        """Device of the features."""
        return self.features[0].device

    def is_valid(self, feature_shapes: Sequence[tuple[int, ...]]) -> bool:
        """Return whether the features have the shapes `feature_shapes` and finite numbers."""
        return tuple(part.shape for part in self.features) == tuple(feature_shapes) and all(
            part.is_floating_point() and bool(part.isfinite().all()) for part in self.features
        )

    def to(self, device: str | torch.device) -> Embedding:
        """Return a copy of the embedding on another device."""
        return replace(self, features=tuple(feature.to(device) for feature in self.features))


@dataclass(frozen=True)
class SegmentRequest:
    """Prompts on one image.

    Attributes:
        embedding: the embedding of the image.
        prompts: the prompts; each selects one object.
        multimask_output: whether each prompt gets 3 masks or 1.
        min_score: if none of a prompt's three scores is higher, its logits may be zeros. No effect on single masks.
    """

    embedding: Embedding
    prompts: Sequence[Prompt]
    multimask_output: bool = True
    min_score: float = -math.inf


@dataclass(frozen=True)
class Segmentation:
    """The masks of one prompt, in the order in which the model predicts them. The number of masks m is 3 or 1.

    Attributes:
        logits: (m, h, w) float32 on the model's device. (h, w) is `Family.low_res_size`. The mask is logits > 0.
        scores: (m,) float32 predicted IoU of each mask.
        size: (height, width) of the image in pixels.
    """

    logits: Tensor
    scores: np.ndarray
    size: tuple[int, int]
