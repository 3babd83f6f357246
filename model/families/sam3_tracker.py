"""The SAM 3 tracker (2025) for images: SAM 2's decoder on a plain vision transformer with 1008 x 1008 pixels."""

from __future__ import annotations

from transformers import Sam3TrackerModel

from .sam2 import Sam2


class Sam3Tracker(Sam2):
    """Checkpoint `facebook/sam3`. Only the weights of the tracker and the vision encoder are read."""

    name = "sam3_tracker"
    model_class = Sam3TrackerModel
    processors = ("Sam3ImageProcessor", "Sam3TrackerProcessor")
    usual_mean = usual_std = (0.5, 0.5, 0.5)
