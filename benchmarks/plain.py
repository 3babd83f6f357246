"""The baseline: transformers as a user would call it, in float32, with its own processors, row by row."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoConfig, Sam2Model, SamModel, SamProcessor

Answer = list[dict[str, Any]]  # a prediction for each prompt, as in the responses of the endpoint


class Plain:
    """A wrapper as a user would write it. `answer` scores a row; `embed`, `decode` and `masks` are its steps.

    Args:
        checkpoint: folder of the checkpoint.
        attention: transformers' implementation of attention, such as `eager`; None for the one that `from_pretrained`
            chooses.

    Attributes:
        attention: the implementation of attention that the model uses.
    """

    def __init__(self, checkpoint: Path, attention: str | None = None) -> None:
        self.is_sam = AutoConfig.from_pretrained(checkpoint).model_type == "sam"
        model_class: Any = SamModel if self.is_sam else Sam2Model
        options = {} if attention is None else {"attn_implementation": attention}
        self.model = model_class.from_pretrained(checkpoint, **options).eval()
        self.attention: str = self.model.config._attn_implementation
        # Sam2Processor needs torchvision, so `pixels` and `masks` do its work.
        self.processor: Any = SamProcessor.from_pretrained(checkpoint) if self.is_sam else None

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Return an RGB image as the model's input, (1, 3, side, side)."""
        if self.is_sam:
            pixels: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"]
            return pixels
        side = self.model.config.prompt_encoder_config.image_size
        square = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        square = F.interpolate(square, (side, side), mode="bilinear", antialias=True) / 255.0
        mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return (square - mean) / std

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor) -> Any:
        """Return the features of (n, 3, side, side) inputs."""
        return self.model.get_image_embeddings(pixels)

    @torch.no_grad()
    def decode(self, embedding: Any, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode (1, p, 4) boxes, in pixels of the model's input, to logits (1, p, 3, h, w) and scores (1, p, 3)."""
        outputs = self.model(image_embeddings=embedding, input_boxes=boxes, multimask_output=True)
        return outputs.pred_masks, outputs.iou_scores

    def masks(self, logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Upscale (1, p, 3, h, w) logits to (p, 3, height, width) bool masks of the image's size."""
        masks: np.ndarray
        if self.is_sam:
            side = self.model.config.vision_config.image_size
            scale = side / max(size)
            scaled = [int(length * scale + 0.5) for length in size]
            masks = self.processor.image_processor.post_process_masks(logits, [size], [scaled])[0].numpy()
        else:
            masks = (F.interpolate(logits[0], size, mode="bilinear", align_corners=False) > 0).numpy()
        return masks

    def read(self, data: bytes) -> Image.Image:
        """Decode an image file."""
        return Image.open(io.BytesIO(data)).convert("RGB")

    def answer(self, data: bytes, boxes: Sequence[Sequence[float]], features: Any = None) -> Answer:
        """Score a row: read the image, encode it, decode the boxes, and write three masks per box as base64 PNG.

        Args:
            data: the image file.
            boxes: x1, y1, x2, y2 of each box in pixels.
            features: the features of the image, if a user has kept them; None encodes the image.
        """
        image = self.read(data)
        size = image.height, image.width
        side = self.model.config.prompt_encoder_config.image_size
        scale = np.full(4, side / max(size)) if self.is_sam else np.array([side / size[1], side / size[0]] * 2)
        scaled = torch.tensor(np.array(boxes) * scale, dtype=torch.float32)[None]
        logits, scores = self.decode(self.embed(self.pixels(image)) if features is None else features, scaled)
        predictions = []
        for masks, values in zip(self.masks(logits, size), scores[0].tolist(), strict=True):
            pairs = zip(masks, values, strict=True)
            answers = [{"encoded_binary_mask": png(mask), "iou_score": score} for mask, score in pairs]
            predictions.append({"mask_per_prediction": answers})
        return predictions


def png(mask: np.ndarray) -> str:
    """Return a (height, width) bool mask as base64 text of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def unpng(text: str) -> np.ndarray:
    """Return the (height, width) bool mask of a base64 text that `png` or this project has written."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L")) > 0
