"""The SAM 3 tracker (2025): SAM 2's decoder and memory on a plain vision transformer with 1008 x 1008 pixels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, Sam3TrackerModel, Sam3TrackerVideoModel

from .sam2 import Sam2
from .sam2_video import Sam2Video


class Sam3Tracker(Sam2):
    """Checkpoint `facebook/sam3`. Only the weights of the tracker and the vision encoder are read."""

    name = "sam3_tracker"
    model_class: ClassVar[type[PreTrainedModel]] = Sam3TrackerModel
    processors = ("Sam3ImageProcessor", "Sam3TrackerProcessor")
    usual_mean = usual_std = (0.5, 0.5, 0.5)


class Sam3TrackerVideo(Sam2Video, Sam3Tracker):
    """Checkpoint `facebook/sam3` with the memory parts of its tracker."""

    model_class = Sam3TrackerVideoModel
    image_family = Sam3Tracker

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to three feature maps, as `Sam3Tracker` does."""
        # transformers' Sam3TrackerModel marks a fourth feature map, which it drops. So embeddings have no marker.
        maps = self.model.get_image_features(pixels.contiguous(memory_format=torch.channels_last)).fpn_hidden_states
        sides = (shape[2:] for shape in self.feature_shapes)
        return tuple(part.permute(1, 2, 0).unflatten(2, side) for part, side in zip(maps, sides, strict=True))

    def mark(self, features: Tensor) -> Tensor:
        """Add the marker of frames without memory."""
        return features + self.marker

    def unmark(self, features: Tensor) -> Tensor:
        """Return the features, which have no marker."""
        return features
