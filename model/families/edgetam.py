"""EdgeTAM (2025): SAM2 on a small convolutional backbone."""

from __future__ import annotations

from transformers import EdgeTamModel

from model.families.sam2 import Sam2


class EdgeTam(Sam2):
    """`yonigozlan/EdgeTAM-hf`. Its RepViT backbone is timm's, which needs the torchvision that fits torch."""

    name = "edgetam"
    model_class = EdgeTamModel
    requirements = ("timm==1.0.31", "torchvision==0.28.0")
