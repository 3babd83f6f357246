"""The base class of model families: the interface of a model, and the code that all families share."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..concepts.finder import ConceptFinder
from ..device_masks import upscale
from ..prompts import PromptBatch
from ..upscaling import Step


class Family(ABC):
    """A model of one architecture and its preprocessing.

    In the shapes below, (h, w) is the size of an image, S the side of the model's square input, p the number of
    prompts, and m the number of masks per prompt. Threads may share an instance.

    Args:
        model: transformers' model. Its layers are replaced by faster layers in place.
        processing: the content of the checkpoint's `preprocessor_config.json`. The family's usual values replace
            missing values.

    Attributes:
        name: name of the family.
        model_class: transformers' class of the model.
        usual_mean: means of red, green and blue that published checkpoints use to normalise pixels from 0 to 1.
        usual_std: standard deviations of red, green and blue that published checkpoints use in the same way.
        encoder_tensors: prefixes of the names of the tensors that `embed` depends on.
        tracks: whether the model has the layers that remember earlier frames, so that it can track objects in a video.
        requirements: packages that the family needs in addition to the project's own requirements.
        input_size: S, in pixels.
        low_res_size: (height, width) of the low-resolution logits that the model predicts.
    """

    name: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    usual_mean: ClassVar[tuple[float, ...]] = (0.485, 0.456, 0.406)
    usual_std: ClassVar[tuple[float, ...]] = (0.229, 0.224, 0.225)
    encoder_tensors: ClassVar[tuple[str, ...]] = ("vision_encoder.",)
    tracks: ClassVar[bool] = False
    requirements: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Any, processing: dict[str, Any]) -> None:
        self.model = model
        self.mean = tuple(processing.get("image_mean") or self.usual_mean)
        self.std = tuple(processing.get("image_std") or self.usual_std)
        self.input_size = int(self.sizes.image_size)
        side = 4 * self.input_size // int(self.sizes.patch_size)
        self.low_res_size = (side, side)
        self._positions: tuple[tuple[int, int], Tensor] | None = None

    def load_files(self, checkpoint: str) -> None:
        """Load further files that the family needs, from a Hugging Face id or a checkpoint folder.

        Raises:
            ValueError: a file is missing or cannot be read.
        """
        return None

    def save_files(self, folder: Path) -> None:
        """Save the files that `load_files` loads to a checkpoint folder."""
        return None

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        device: torch.device = self.model.device
        return device

    @property
    def on_gpu(self) -> bool:
        """Whether to use the code for GPUs. A test can set this to True to run that code on a CPU."""
        return self.device.type != "cpu"

    @property
    def vision_encoder(self) -> Any:
        """The image encoder of the model."""
        return self.model.vision_encoder

    @property
    def prompt_model(self) -> Any:
        """The network with the modules `prompt_encoder` and `mask_decoder`."""
        return self.model

    @property
    def sizes(self) -> Any:
        """A config with `image_size`, `patch_size`, and the `hidden_size` of the map with the lowest resolution."""
        return self.model.config.prompt_encoder_config

    @property
    def features_shape(self) -> tuple[int, int, int, int]:
        """Shape (1, channels, height, width) of the feature map with the lowest resolution."""
        side = self.low_res_size[0] // 4
        return 1, int(self.sizes.hidden_size), side, side

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape (1, channels, height, width) of each feature map of one image, in the order of `embed`."""
        return (self.features_shape,)

    def image_positions(self) -> Tensor:
        """Return the position embedding (1, channels, height, width) of the map with the lowest resolution.

        Without gradients, it is computed only when its weights have changed. Otherwise, it would take 4 % of a click.
        """
        compute = self.prompt_model.get_image_wide_positional_embeddings
        weights = self.prompt_model.shared_image_embedding.positional_embedding
        if torch.is_grad_enabled() or weights.is_inference():  # tensors of the inference mode have no version
            return cast(Tensor, compute())
        version = weights.data_ptr(), weights._version
        kept = self._positions
        if kept is None or kept[0] != version:
            kept = self._positions = version, compute()
        return kept[1]

    @property
    def prompt_maps(self) -> int:
        """Number of feature maps that `predict` takes. They are the first feature maps that `embed` returns."""
        return len(self.feature_shapes)

    def fingerprint(self) -> str:
        """Return a hash of the weights, computed from about 64 numbers of every tensor."""
        return self._hash_of(("",))

    def encoder_fingerprint(self) -> str:
        """Return a hash of the weights that embeddings depend on, computed like `fingerprint`.

        Models with the same encoder share embeddings, for example two versions of a model with fine-tuned decoders.
        """
        return self._hash_of(self.encoder_tensors)

    def _hash_of(self, prefixes: tuple[str, ...]) -> str:
        digest = hashlib.sha256(f"{self.name} {self.mean} {self.std}".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            if not name.startswith(prefixes):
                continue
            sample = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.tobytes())
        return digest.hexdigest()[:32]

    @property
    def finder(self) -> ConceptFinder | None:
        """The part of the model that finds objects by text or by example; None if the model has no such part."""
        return None

    @abstractmethod
    def processing(self) -> dict[str, Any]:
        """Return the content of `preprocessor_config.json`. It makes transformers preprocess like `preprocess`."""

    @abstractmethod
    def preprocess(self, image: np.ndarray) -> Tensor:
        """Scale and normalise an image.

        Args:
            image: (h, w, 3) uint8 RGB.

        Returns:
            (3, S, S) float32 on the CPU, for `embed`.
        """

    @abstractmethod
    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) inside the model's input of an image of `size` (h, w), at least 1 pixel each."""

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Scale and normalise images for `embed`.

        Args:
            images: RGB images, each (h, w, 3) uint8.

        Returns:
            (n, 3, S, S) float32 on the model's device.
        """
        prepare = self.preprocess_on_device if self.on_gpu else self.preprocess
        return torch.stack([prepare(image) for image in images])

    def preprocess_on_device(self, image: np.ndarray) -> Tensor:
        """Scale and normalise an image on the model's device. Only its uint8 pixels are copied there.

        Some values differ from those of `preprocess` by one of 255 levels, and very few by two, because the sums are
        not in fixed-point numbers.

        Args:
            image: (h, w, 3) uint8 RGB.

        Returns:
            (3, S, S) float32 on the model's device.
        """
        # Read-only arrays, such as those of Pillow, are copied, because torch warns about them.
        pixels = torch.from_numpy(np.require(image, requirements="W"))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # without this, the copy would block the thread
        pixels = pixels.to(self.device, non_blocking=True).permute(2, 0, 1)[None].float()
        height, width = self.scaled_size((image.shape[0], image.shape[1]))
        # Both directions are rounded, because Pillow and torch round both on a CPU.
        for size in ((image.shape[0], width), (height, width)):
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
            pixels = pixels.round_().clamp_(0, 255)
        normalized = self.normalize(pixels[0])
        return F.pad(normalized, (0, self.input_size - width, 0, self.input_size - height))

    @abstractmethod
    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            pixels: (n, 3, S, S) float32 on the model's device.

        Returns:
            The feature maps, each (n, channels, height, width).
        """

    @abstractmethod
    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the factors (x, y) that scale coordinates in an image of `size` (h, w) to the model's input."""

    @abstractmethod
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
        """Predict the masks of p prompts. Coordinates are in pixels of the model's input.

        Args:
            features: the first `prompt_maps` feature maps of each prompt's image, each (p, channels, height, width).
            points: (p, n, 2) float32 x and y, or None.
            labels: (p, n) int64 label of each point: 1 for object, 0 for background, -1 and -10 for padding; or None.
            boxes: (p, 4) float32 x1, y1, x2, y2, or None.
            masks: (p, 1, *low_res_size) float32 logits, or None.
            multimask_output: whether to predict 3 masks per prompt or 1.
            min_score: if all three scores of a prompt are at most `min_score`, its logits may be zeros.

        Returns:
            (p, m, *low_res_size) logits and (p, m) predicted IoU.
        """

    @abstractmethod
    def upscaling(self, size: tuple[int, int]) -> list[Step]:
        """Return the steps that upscale low-resolution logits to the size (h, w) of an image."""

    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Upscale low-resolution logits to the size of an image.

        Args:
            logits: (m, *low_res_size) float32.
            size: (h, w) of the image in pixels.

        Returns:
            (m, h, w) float32 logits.
        """
        return upscale(logits, self.upscaling(size))

    def decode(
        self, features: tuple[Tensor, ...], prompts: PromptBatch, multimask_output: bool, min_score: float = -math.inf
    ) -> tuple[Tensor, Tensor]:
        """Convert a batch of prompts to tensors and call `predict`. Other arguments and results are as in `predict`."""
        points, labels, boxes, masks = (
            None if array is None else torch.from_numpy(array).to(self.device)
            for array in (prompts.points, prompts.labels, prompts.boxes, prompts.masks)
        )
        return self.predict(
            features, points, labels, boxes, None if masks is None else masks[:, None], multimask_output, min_score
        )

    def normalize(self, pixels: Tensor) -> Tensor:
        """Convert (3, height, width) pixels, 0 to 255, to float32 with the checkpoint's mean and standard deviation."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std
