"""What a user has without this project: transformers, eager, float32, its own processors, row by row."""

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


class Plain:
    """A wrapper as one writes it: `embed` and `decode` are its parts, `answer` is the whole row."""

    def __init__(self, checkpoint: Path) -> None:
        self.is_sam = AutoConfig.from_pretrained(checkpoint).model_type == "sam"
        kind: Any = SamModel if self.is_sam else Sam2Model
        self.model = kind.from_pretrained(checkpoint, attn_implementation="eager").eval()
        # Sam2Processor cannot be imported without torchvision; what it does is written out below.
        self.processor: Any = SamProcessor.from_pretrained(checkpoint) if self.is_sam else None

    def pixels(self, image: Image.Image) -> torch.Tensor:
        if self.is_sam:
            return self.processor(image, return_tensors="pt")["pixel_values"]
        side = self.model.config.prompt_encoder_config.image_size
        square = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        square = F.interpolate(square, (side, side), mode="bilinear", antialias=True) / 255.0
        mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        return (square - mean) / std

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor) -> Any:
        return self.model.get_image_embeddings(pixels)

    @torch.no_grad()
    def decode(self, embedding: Any, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, p, 4) boxes of the model's input to logits (1, p, 3, 256, 256) and scores (1, p, 3)."""
        found = self.model(image_embeddings=embedding, input_boxes=boxes, multimask_output=True)
        return found.pred_masks, found.iou_scores

    def masks(self, logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        """(1, p, 3, 256, 256) to (p, 3, h, w) bool."""
        if not self.is_sam:
            return (F.interpolate(logits[0], size, mode="bilinear", align_corners=False) > 0).numpy()
        side = self.model.config.vision_config.image_size
        scale = side / max(size)
        scaled = [int(one * scale + 0.5) for one in size]
        return self.processor.image_processor.post_process_masks(logits, [size], [scaled])[0].numpy()

    def answer(self, data: bytes, boxes: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        """A row: the image decoded and encoded, its boxes decoded, three masks each as base64 PNG."""
        image = Image.open(io.BytesIO(data)).convert("RGB")
        size = image.height, image.width
        side = self.model.config.prompt_encoder_config.image_size
        scale = np.full(4, side / max(size)) if self.is_sam else np.array([side / size[1], side / size[0]] * 2)
        scaled = torch.tensor(np.array(boxes) * scale, dtype=torch.float32)[None]
        logits, scores = self.decode(self.embed(self.pixels(image)), scaled)
        found = zip(self.masks(logits, size), scores[0].tolist(), strict=True)
        predictions = []
        for made, values in found:
            pairs = zip(made, values, strict=True)
            answers = [{"encoded_binary_mask": png(mask), "iou_score": score} for mask, score in pairs]
            predictions.append({"mask_per_prediction": answers})
        return predictions


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
