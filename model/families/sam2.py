"""The SAM 2 family (Segment Anything 2, 2024): three feature maps; the image is stretched to the square input."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Sam2HieraDetModel, Sam2Model

from ..upscaling import Step
from . import hiera
from .decoder import predict_masks
from .family import Family


class Sam2(Family):
    """Checkpoints `facebook/sam2-hiera-tiny`, `-small`, `-base-plus`, `-large` and `facebook/sam2.1-*`, for images.

    Preprocessing gives the same pixels as transformers' Sam2Processor. That processor needs torchvision, which only
    calls torch's resize; this class calls torch directly.
    """

    name = "sam2"
    model_class: ClassVar[type[PreTrainedModel]] = Sam2Model
    processors: ClassVar[tuple[str, str]] = ("Sam2ImageProcessor", "Sam2Processor")

    # transformers applies the first layers of the decoder's upscaling to the feature maps of the encoder.
    encoder_tensors: ClassVar[tuple[str, ...]] = (
        "vision_encoder.",
        "no_memory_embedding",
        "mask_decoder.conv_s0.",
        "mask_decoder.conv_s1.",
    )

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        self.vision_encoder.neck.position_encoding = ZeroPositionEncoding()
        if isinstance(backbone := self.vision_encoder.backbone, Sam2HieraDetModel):
            hiera.use_fast_layers(backbone)

    def processing(self) -> dict[str, Any]:
        """Return the content of a `preprocessor_config.json` for transformers' Sam2ImageProcessor."""
        low_res = self.low_res_size[0]
        return {
            "image_processor_type": self.processors[0],
            "processor_class": self.processors[1],
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "size": {"height": self.input_size, "width": self.input_size},
            "mask_size": {"height": low_res, "width": low_res},
        }

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the whole square input, to which every image is stretched."""
        return self.input_size, self.input_size

    def preprocess(self, image: np.ndarray) -> Tensor:
        """Stretch an image to (S, S) and normalise it."""
        # Read-only arrays, such as those of Pillow, are copied, because torch warns about them.
        writable = np.require(image, requirements="W")
        pixels = torch.from_numpy(writable).permute(2, 0, 1)[None]
        square = (self.input_size, self.input_size)
        return self.normalize(F.interpolate(pixels, square, mode="bilinear", align_corners=False, antialias=True)[0])

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to three feature maps, in ascending order of their strides."""
        # If the channels of a pixel are adjacent in memory, a CPU cuts overlapping patches five times as fast.
        return tuple(self.model.get_image_embeddings(pixels.contiguous(memory_format=torch.channels_last)))

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape (1, channels, height, width) of each of the three feature maps."""
        _, channels, height, width = self.features_shape
        fine, middle = (1, channels // 8, 4 * height, 4 * width), (1, channels // 4, 2 * height, 2 * width)
        return fine, middle, self.features_shape

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the scaling factors (x, y), S / w and S / h."""
        return self.input_size / size[1], self.input_size / size[0]

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
        network = self.prompt_model
        *high_resolution, image = features
        if points is None and boxes is None:
            # A prompt with only a mask input gets a padding point, as in Meta's predictor.
            points = image.new_zeros(len(image), 1, 2)
            labels = torch.full(points.shape[:2], -1, device=points.device)
        sparse, dense = network.prompt_encoder(
            input_points=None if points is None else points[:, None],
            input_labels=None if labels is None else labels[:, None],
            input_boxes=None if boxes is None else boxes[:, None],
            input_masks=masks,
        )
        positions = self.image_positions()
        return predict_masks(
            network.mask_decoder,
            image,
            positions,
            sparse,
            dense,
            multimask_output,
            tuple(high_resolution),
            min_score,
        )

    def upscaling(self, size: tuple[int, int]) -> list[Step]:
        """Return one step, which scales to the image."""
        return [(self.low_res_size, size)]


class ZeroPositionEncoding(nn.Module):
    """Replaces the position encoding of the encoder's neck by zeros, which saves a tenth of the time of encoding.

    Only SAM 2's memory attention, which tracks objects through a video, reads the encoding.
    """

    def forward(
        self, shape: torch.Size, device: torch.device | str, dtype: torch.dtype, mask: Tensor | None = None
    ) -> Tensor:
        """Return zeros of `shape`, which share one number in memory."""
        return torch.zeros((), device=device, dtype=dtype).expand(shape)
