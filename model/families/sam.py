"""The SAM family (Segment Anything, 2023): one feature map; the longer side is scaled to S and the rest is padded."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, SamModel

from ..upscaling import Step
from . import vit
from .decoder import predict_masks
from .family import Family


class Sam(Family):
    """Checkpoints `facebook/sam-vit-base`, `-large`, `-huge`, and others of the same architecture.

    Preprocessing gives the same pixels as transformers' SamImageProcessorPil.
    """

    name = "sam"
    model_class: ClassVar[type[PreTrainedModel]] = SamModel
    processor: ClassVar[str] = "SamProcessor"

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        vit.use_fast_layers(model.vision_encoder)

    def processing(self) -> dict[str, Any]:
        """Return the content of a `preprocessor_config.json` for transformers' SamImageProcessor."""
        low_res = self.low_res_size[0]
        return {
            "image_processor_type": "SamImageProcessor",
            "processor_class": self.processor,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "size": {"longest_edge": self.input_size},
            "pad_size": {"height": self.input_size, "width": self.input_size},
            "mask_size": {"longest_edge": low_res},
            "mask_pad_size": {"height": low_res, "width": low_res},
        }

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Scale the longer side to S."""
        scale = self.input_size / max(size)
        height, width = (max(1, int(side * scale + 0.5)) for side in size)
        return height, width

    def preprocess(self, image: np.ndarray) -> Tensor:
        """Scale the longer side to S, normalise, and pad with zeros at the right and at the bottom."""
        height, width = self.scaled_size(image.shape[:2])
        scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = self.normalize(torch.from_numpy(np.array(scaled)).permute(2, 0, 1))
        return F.pad(pixels, (0, self.input_size - width, 0, self.input_size - height))

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to one feature map."""
        return (self.model.vision_encoder(pixels).last_hidden_state,)

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the scaling factors (x, y), which can differ slightly because of rounding."""
        height, width = self.scaled_size(size)
        return width / size[1], height / size[0]

    def predict(
        self,
        features: tuple[Tensor, ...],
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        multimask_output: bool,
        min_score: float = -math.inf,
    ) -> tuple[Tensor, Tensor]:
        """Embed the prompts and predict their masks."""
        sparse, dense = self.model.prompt_encoder(
            input_points=None if points is None else points[:, None],
            input_labels=None if labels is None else labels[:, None],
            input_boxes=None if boxes is None else boxes[:, None],
            input_masks=masks,
        )
        return self.decode_masks(features, sparse, dense, multimask_output, min_score)

    def decode_masks(
        self,
        features: tuple[Tensor, ...],
        sparse: Tensor | None,
        dense: Tensor,
        multimask_output: bool,
        min_score: float,
    ) -> tuple[Tensor, Tensor]:
        """Predict the masks of embedded prompts.

        Args:
            features: the feature maps of each prompt's image, each (p, channels, height, width).
            sparse: (p, 1, tokens, channels) embedded points and boxes, or None.
            dense: (p, channels, height, width) embedded mask inputs.
            multimask_output: see `predict`.
            min_score: see `predict`.

        Returns:
            (p, m, *low_res_size) logits and (p, m) predicted IoU.
        """
        positions = self.image_positions()
        return predict_masks(
            self.model.mask_decoder, features[0], positions, sparse, dense, multimask_output, min_score=min_score
        )

    def upscaling(self, size: tuple[int, int]) -> list[Step]:
        """Return two steps: scale to the padded input, then crop the padding and scale to the image."""
        return [(self.low_res_size, (self.input_size, self.input_size)), (self.scaled_size(size), size)]
