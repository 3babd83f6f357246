"""The SAM 3 tracker (2025): SAM 2's decoder and memory on a plain vision transformer with 1008 x 1008 pixels."""

from __future__ import annotations

from typing import ClassVar

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
