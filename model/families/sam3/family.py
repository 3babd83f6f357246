"""The families of SAM 3's checkpoints, which hold a detector and a tracker, or a detector only."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3Model
from transformers.models.sam3_lite_text.modeling_sam3_lite_text import Sam3LiteTextModel

from ...errors import BadInput
from ..sam2 import Sam2
from .decoder import FastDetrDecoder
from .finder import Sam3Finder
from .memory import Sam3Memory
from .text import TextEmbedder
from .vit import use_fast_layers

MIN_TOKENS = 256  # of a vocabulary; there is a token for each byte


class Sam3Detector(Sam2):
    """Checkpoints that hold SAM 3's detector only, such as a fine-tuned Sam3Model. They take no points and no boxes.

    The feature maps are the three maps of the detector's neck.
    """

    name = "sam3"
    model_class: ClassVar[type[PreTrainedModel]] = Sam3Model
    processors = ("Sam3ImageProcessor", "Sam3Processor")
    usual_mean = usual_std = (0.5, 0.5, 0.5)
    encoder_tensors: ClassVar[tuple[str, ...]] = ("vision_encoder.",)

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        super().__init__(model, processing)
        use_fast_layers(self.vision_encoder)
        self.detector.detr_decoder = FastDetrDecoder(self.detector.detr_decoder)
        self._finder: Sam3Finder | None = None

    def load_files(self, checkpoint: str) -> None:
        """Load the tokenizer of the texts."""
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        except (OSError, ValueError):
            tokenizer = []
        # If there are no files, transformers creates a tokenizer with special tokens only.
        if len(tokenizer) < MIN_TOKENS:
            raise ValueError(
                f"checkpoint '{checkpoint}' has no tokenizer, which SAM 3 needs for texts: copy tokenizer.json and "
                "tokenizer_config.json from the checkpoint that it was trained from, such as facebook/sam3"
            )
        self._finder = Sam3Finder(self.detector, TextEmbedder(self.detector, tokenizer))

    def save_files(self, folder: Path) -> None:
        """Save the tokenizer, so that a packaged model needs no other files."""
        if self._finder is not None:
            self._finder.texts.tokenizer.save_pretrained(folder)

    @property
    def finder(self) -> Sam3Finder | None:
        """The detector as a finder of concepts. None for a model without a tokenizer."""
        return self._finder

    @property
    def detector(self) -> Any:
        """The detector, a Sam3Model or Sam3LiteTextModel."""
        return self.model

    @property
    def vision_encoder(self) -> Any:
        """The image encoder, which the tracker shares."""
        return self.detector.vision_encoder

    @property
    def sizes(self) -> Any:
        """The sizes of the image encoder."""
        vision = self.vision_encoder.config
        patch_size, channels = vision.backbone_config.patch_size, vision.fpn_hidden_size
        return SimpleNamespace(image_size=vision.image_size, patch_size=patch_size, hidden_size=channels)

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape (1, channels, height, width) of each of the detector's feature maps."""
        _, channels, height, width = self.features_shape
        fine, middle, coarse = ((1, channels, scale * height, scale * width) for scale in (4, 2, 1))
        return fine, middle, coarse

    @property
    def prompt_maps(self) -> int:
        """0, because the checkpoint has no tracker."""
        return 0

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to three feature maps, in ascending order of their strides."""
        return neck_maps(self.vision_encoder.neck, self._encode(pixels))

    def _encode(self, pixels: Tensor) -> Tensor:
        """Apply the vision transformer to pixels. Returns (n, channels, height, width)."""
        tokens: Tensor = self.vision_encoder.backbone(pixels).last_hidden_state
        return torch.unflatten(tokens.mT, 2, self.features_shape[-2:])

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
        """Raise BadInput, because the checkpoint has no tracker."""
        column = "input_boxes" if points is None and boxes is not None else "input_points"
        expected = (
            "a model that takes points, boxes and masks (package a checkpoint with SAM 3's tracker: facebook/sam3)"
        )
        raise BadInput(column, expected, "a model with SAM 3's detector only, which takes texts and exemplars")


class Sam3LiteText(Sam3Detector):
    """Checkpoints `yonigozlan/sam3-litetext-s0` and others: SAM 3's detector with a smaller text encoder."""

    model_class = Sam3LiteTextModel


class Sam3(Sam3Memory, Sam3Detector):
    """Checkpoint `facebook/sam3`: concepts by the detector; points, boxes, masks and videos by the tracker.

    An image is encoded once for both. The feature maps are the three maps of the tracker, and then the three maps of
    the detector.
    """

    model_class = Sam3VideoModel
    processors = ("Sam3ImageProcessor", "Sam3VideoProcessor")
    encoder_tensors = (
        "detector_model.vision_encoder.",
        "tracker_neck.",
        "tracker_model.mask_decoder.conv_s0.",
        "tracker_model.mask_decoder.conv_s1.",
    )

    @property
    def detector(self) -> Any:
        """The detector, a Sam3Model."""
        return self.model.detector_model

    @property
    def prompt_model(self) -> Any:
        """The tracker, a Sam3TrackerVideoModel."""
        return self.model.tracker_model

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape (1, channels, height, width) of each feature map."""
        return *Sam2.feature_shapes.__get__(self), *super().feature_shapes

    @property
    def prompt_maps(self) -> int:
        """3, the number of the tracker's maps."""
        return 3

    def _neck(self, model: Any) -> Any:
        return model.tracker_neck

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to six feature maps."""
        encoded = self._encode(pixels)
        fine, middle, coarse = neck_maps(self.model.tracker_neck, encoded)
        # transformers' Sam3TrackerModel adds the embedding for "no memory" to a fourth map, which it does not use.
        decoder = self.prompt_model.mask_decoder
        tracker_maps = decoder.conv_s0(fine), decoder.conv_s1(middle), coarse
        return *tracker_maps, *neck_maps(self.vision_encoder.neck, encoded)

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
        """Embed the prompts and predict their masks with the tracker."""
        return Sam2.predict(self, features, points, labels, boxes, masks, multimask_output, min_score)


def neck_maps(neck: Any, encoded: Tensor) -> tuple[Tensor, ...]:
    """Compute the three feature maps of a Sam3VisionNeck that are used. transformers computes a fourth one.

    Args:
        neck: the neck.
        encoded: (n, channels, height, width) output of the vision transformer.

    Returns:
        (n, C, 4 height, 4 width), (n, C, 2 height, 2 width) and (n, C, height, width).
    """
    return tuple(layer(encoded) for layer in neck.fpn_layers[:3])
