"""The SAM 3 tracker (2025) for images: SAM 2's decoder on a plain vision transformer with 1008 x 1008 pixels."""

from __future__ import annotations

from typing import Any

from transformers import Sam3TrackerModel

from .sam2 import Sam2
from .sam3.vit import use_fast_layers


class Sam3Tracker(Sam2):
    """Checkpoints that hold SAM 3's tracker only, such as a fine-tuned one. `facebook/sam3` is of the family `sam3`."""

    name = "sam3_tracker"
    model_class = Sam3TrackerModel
    processors = ("Sam3ImageProcessor", "Sam3TrackerProcessor")
    usual_mean = usual_std = (0.5, 0.5, 0.5)

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        use_fast_layers(self.vision_encoder)
