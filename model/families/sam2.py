"""Segment Anything 2 (2024): three feature maps, the image stretched to the square input."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Sam2HieraDetModel, Sam2Model

from model.families import decoder, hiera
from model.families.family import Family
from model.upscaling import Step

# Decoded images are lent by Pillow, and are only read here; torch would warn of that in front of the user.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class Sam2(Family):
    """`facebook/sam2-hiera-tiny`, `-small`, `-base-plus`, `-large`, `facebook/sam2.1-*`, as image models.

    The reference is transformers' Sam2Processor, which needs torchvision; torch's own resize is the one it calls.
    """

    name = "sam2"
    model_class: ClassVar[type[PreTrainedModel]] = Sam2Model
    processors: ClassVar[tuple[str, str]] = ("Sam2ImageProcessor", "Sam2Processor")

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        # A tenth of the time, for the memory of videos; nothing of an image model reads them.
        model.vision_encoder.neck.position_encoding.forward = _no_positions
        if isinstance(backbone := model.vision_encoder.backbone, Sam2HieraDetModel):
            hiera.swap(backbone)

    def processing(self) -> dict[str, Any]:
        low_res = self.low_res_size[0]
        return {
            "image_processor_type": self.processors[0],
            "processor_class": self.processors[1],
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "size": {"height": self.input_size, "width": self.input_size},
            "mask_size": {"height": low_res, "width": low_res},
        }

    def preprocess(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        square = (self.input_size, self.input_size)
        return self.normalize(F.interpolate(pixels, square, mode="bilinear", align_corners=False, antialias=True)[0])

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        # A CPU cuts patches that overlap five times as fast from pixels whose channels lie side by side.
        return tuple(self.model.get_image_embeddings(pixels.contiguous(memory_format=torch.channels_last)))

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        return self.input_size / size[1], self.input_size / size[0]

    def predict(
        self,
        features: tuple[Tensor, ...],
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        multimask_output: bool,
        least: float = -math.inf,
    ) -> tuple[Tensor, Tensor]:
        *fine, image_embeddings = features
        if points is None and boxes is None:
            # A mask alone comes with an empty point, as in Meta's predictor.
            points = image_embeddings.new_zeros(len(image_embeddings), 1, 2)
            labels = torch.full(points.shape[:2], -1, device=points.device)
        sparse, dense = self.model.prompt_encoder(
            input_points=None if points is None else points[:, None],
            input_labels=None if labels is None else labels[:, None],
            input_boxes=None if boxes is None else boxes[:, None],
            input_masks=masks,
        )
        positions = self.model.get_image_wide_positional_embeddings()
        return decoder.masks(
            self.model.mask_decoder, image_embeddings, positions, sparse, dense, multimask_output, tuple(fine), least
        )

    def upscaling(self, size: tuple[int, int]) -> list[Step]:
        return [(self.low_res_size, size)]


def _no_positions(shape: torch.Size, device: torch.device, dtype: torch.dtype, mask: None = None) -> Tensor:
    return torch.zeros((), device=device, dtype=dtype).expand(shape)
