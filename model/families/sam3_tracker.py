"""The SAM 3 tracker (2025): SAM 2's decoder and memory on a plain vision transformer with 1008 x 1008 pixels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, Sam3TrackerModel, Sam3TrackerVideoModel

from .sam2 import Sam2
from .sam3.memory import Sam3Memory
from .sam3.vit import use_fast_layers


class Sam3Tracker(Sam2):
    """Checkpoints that hold SAM 3's tracker only, such as a fine-tuned one. `facebook/sam3` is of the family `sam3`."""

    name = "sam3_tracker"
    model_class: ClassVar[type[PreTrainedModel]] = Sam3TrackerModel
    processors = ("Sam3ImageProcessor", "Sam3TrackerProcessor")
    usual_mean = usual_std = (0.5, 0.5, 0.5)

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        use_fast_layers(self.vision_encoder)


class Sam3TrackerVideo(Sam3Memory, Sam3Tracker):
    """Checkpoints that hold SAM 3's tracker with its memory parts, but no detector."""

    model_class = Sam3TrackerVideoModel
    image_family = Sam3Tracker

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to three feature maps, as `Sam3Tracker` does."""
        maps = self.model.get_image_features(pixels.contiguous(memory_format=torch.channels_last)).fpn_hidden_states
        sides = (shape[2:] for shape in self.feature_shapes)
        return tuple(part.permute(1, 2, 0).unflatten(2, side) for part, side in zip(maps, sides, strict=True))
