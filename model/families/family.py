"""What the segmenter asks of a model family, and what the families share."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from model.prompts import PromptBatch
from model.upscaling import Step


class Family(ABC):
    """One kind of model. Below, (h, w) is an image's size, S the model's input size, p prompts, m masks a prompt.

    Nothing is kept between calls, so one instance serves any number of threads.
    """

    name: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    usual_mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    usual_std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    requirements: ClassVar[tuple[str, ...]] = ()  # what its models need besides requirements.txt

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        self.model = model
        self.mean = tuple(processing.get("image_mean") or self.usual_mean)
        self.std = tuple(processing.get("image_std") or self.usual_std)
        self.input_size = int(model.config.prompt_encoder_config.image_size)
        side = 4 * self.input_size // int(model.config.prompt_encoder_config.patch_size)
        self.low_res_size = (side, side)

    @property
    def device(self) -> torch.device:
        return self.model.device

    def fingerprint(self) -> str:
        """What tells these weights from all others, from a few numbers of every tensor."""
        digest = hashlib.sha256(f"{self.name} {self.mean} {self.std}".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            some = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + some.tobytes())
        return digest.hexdigest()[:32]

    @abstractmethod
    def processing(self) -> dict[str, Any]:
        """The `preprocessor_config.json` with which transformers' own processor does what `preprocess` does."""

    @abstractmethod
    def preprocess(self, image: np.ndarray) -> Tensor:
        """An (h, w, 3) uint8 RGB image as the (3, S, S) float32 that `embed` takes, on the CPU."""

    @abstractmethod
    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(n, 3, S, S) images to their feature maps, each (n, channels, height, width)."""

    @abstractmethod
    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Pixels of the model's input for a pixel of an (h, w) image, along x and y."""

    @abstractmethod
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
        """Prompts in pixels of the model's input to (p, m, *low_res_size) logits and (p, m) predicted IoU.

        features: each (p, channels, height, width); points (p, n, 2), labels (p, n), boxes (p, 4),
        masks (p, 1, *low_res_size), each of them may be None. m is 3, or 1 without `multimask_output`. Of a prompt none
        of whose 3 masks is predicted an IoU above `least`, the logits need not be made and may be 0.
        """

    @abstractmethod
    def upscaling(self, size: tuple[int, int]) -> list[Step]:
        """How low-resolution logits become those of an (h, w) image."""

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(m, *low_res_size) logits to (m, h, w) logits of the image's own size."""
        full = logits[None]
        for (height, width), larger in self.upscaling(size):
            full = F.interpolate(full[..., :height, :width], larger, mode="bilinear", align_corners=False)
        return full[0]

    def decode(
        self, features: tuple[Tensor, ...], prompts: PromptBatch, multimask_output: bool, least: float = -math.inf
    ) -> tuple[Tensor, Tensor]:
        """As `predict`, from prompts in arrays; features each (p, channels, height, width)."""
        points, labels, boxes, masks = (
            None if part is None else torch.from_numpy(part).to(self.device)
            for part in (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
        )
        return self.predict(
            features, points, labels, boxes, None if masks is None else masks[:, None], multimask_output, least
        )

    def normalize(self, pixels: Tensor) -> Tensor:
        """(3, height, width) uint8 to float32 with the mean and deviation of the checkpoint's training."""
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std
