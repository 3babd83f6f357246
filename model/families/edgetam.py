"""The EdgeTAM family (2025): SAM 2 on a small convolutional backbone."""

from __future__ import annotations

from transformers import EdgeTamModel

from .sam2 import Sam2


class EdgeTam(Sam2):
    """Checkpoint `yonigozlan/EdgeTAM-hf`. Its backbone needs timm, and the torchvision release that matches torch."""

    name = "edgetam"
    model_class = EdgeTamModel
    requirements = ("timm==1.0.31", "torchvision==0.28.0")
