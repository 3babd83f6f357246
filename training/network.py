"""The base class of trainable models: random weights, a forward pass that predicts all four masks, checkpoint files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from sam_endpoint.model import families
from sam_endpoint.model.params import TASK
from sam_endpoint.training.options import IMAGE_SIZE

PATCH_SIZE = 8
# Default params of the starter models, whose scores are lower than those of SAM.
DEFAULT_PARAMS = {"pred_iou_thresh": 0.75, "stability_score_thresh": 0.9, "box_nms_thresh": 0.4}
# Feature maps, each (images, channels, height, width). The coarsest map, which the prompts attend to, is the last.
Features = tuple[Tensor, ...]


class Network(nn.Module, ABC):
    """A model that encodes and decodes with gradients, on the whole input or on a square window of it.

    A window is a square part of the embedding grid. Its `corner` is its first row and column, in grid cells. A window
    keeps the position embeddings that it has in the whole input, so that the trained weights are valid for the whole
    input. A window of a quarter of the input takes less than a quarter of the time.

    Args:
        model: The transformers model.

    Attributes:
        stretched: Whether images fill the square input; otherwise they are padded to it.
        model: The transformers model.
    """

    stretched: ClassVar[bool]

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @staticmethod
    @abstractmethod
    def config(*, image_size: int = IMAGE_SIZE) -> PreTrainedConfig:
        """Return the architecture of the starter checkpoint. Subclasses have parameters for other sizes."""

    @classmethod
    @abstractmethod
    def create(cls, config: Any, seed: int) -> Network:
        """Return a network with random weights.

        Args:
            config: The architecture.
            seed: The seed of the weights.
        """

    @abstractmethod
    def patch_positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return the positional embedding that the image encoder adds to the patches of a window.

        Args:
            grid: The side of the window in cells.
            corner: The first row and column of the window.
        """

    @abstractmethod
    def embed(self, pixels: Tensor, positions: Tensor) -> Features:
        """Encode images.

        Args:
            pixels: (images, 3, side, side), normalised.
            positions: The result of `patch_positions`.

        Returns:
            The feature maps for `decode`.
        """

    @abstractmethod
    def upscale(self, embedding: Tensor, fine: Features) -> Tensor:
        """Upscale the decoder's image tokens.

        Args:
            embedding: (prompts, width, grid, grid).
            fine: The larger feature maps of the prompts' images; empty for a SAM.

        Returns:
            (prompts, width / 8, 4 grid, 4 grid).
        """

    def positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return the positional embedding of a window for the decoder.

        Args:
            grid: The side of the window in cells.
            corner: The first row and column of the window.

        Returns:
            (1, width, grid, grid).
        """
        row, column = corner
        whole: Tensor = self.model.get_image_wide_positional_embeddings()
        return whole[:, :, row : row + grid, column : column + grid]

    def tokens(self, points: Tensor, labels: Tensor, boxes: Tensor | None) -> Tensor:
        """Embed prompts as tokens.

        Args:
            points: (prompts, n, 2), x and y in pixels of the whole input.
            labels: (prompts, n), 1 for the object and 0 for the background.
            boxes: (prompts, 4), x1, y1, x2, y2 in pixels of the whole input, or None.

        Returns:
            (prompts, tokens, width).
        """
        encoder = self.model.prompt_encoder
        embedded: Tensor = encoder._embed_points(points[:, None].float(), labels[:, None], pad=boxes is None)[:, 0]
        return embedded if boxes is None else torch.cat([embedded, encoder._embed_boxes(boxes[:, None])[:, 0]], dim=1)

    def decode(
        self, features: Features, positions: Tensor, sparse: Tensor, mask_inputs: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode all masks of all prompts. Mask 0 is the single mask, masks 1 to 3 are the alternatives.

        Args:
            features: The result of `embed`.
            positions: The result of `positions`.
            sparse: The result of `tokens`, prompts ordered by image.
            mask_inputs: (prompts, 1, side, side) logits.
            has_mask: (prompts,) bool, whether the prompt uses its mask input.

        Returns:
            Logits (prompts, 4, side, side) and predicted IoU (prompts, 4).
        """
        encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        *fine, embeddings = features
        prompts, repeat = sparse.shape[0], sparse.shape[0] // embeddings.shape[0]
        dense = torch.where(
            has_mask[:, None, None, None],
            encoder.mask_embed(mask_inputs),
            encoder.no_mask_embed.weight[:, :, None, None],
        )
        image = embeddings.repeat_interleave(repeat, 0) + dense
        output_tokens = torch.cat([token.weight for token in self.output_tokens()])
        tokens = torch.cat([output_tokens.expand(prompts, -1, -1), sparse], dim=1)[:, None]
        tokens, image_tokens = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=image,
            image_positional_embeddings=positions.expand(prompts, -1, -1, -1),
            attention_similarity=None,
        )
        tokens = tokens[:, 0, len(self.output_tokens()) - 2 :]  # from the token of the score on
        upscaled = self.upscale(
            image_tokens.transpose(2, 3).reshape(image.shape),
            tuple(part.repeat_interleave(repeat, 0) for part in fine),
        )
        heads = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.einsum("pmc,pchw->pmhw", torch.stack(heads, dim=1), upscaled)
        return logits.float(), decoder.iou_prediction_head(tokens[:, 0]).float()

    def output_tokens(self) -> list[nn.Embedding]:
        """Return the embeddings of the decoder's output tokens; the last two are for the score and the masks."""
        return [self.model.mask_decoder.iou_token, self.model.mask_decoder.mask_tokens]


def initialize_weights(model: PreTrainedModel, seed: int, depth: int) -> None:
    """Initialise all weights at random, in place, except position embeddings. transformers initialises them near zero.

    Args:
        model: The model.
        seed: The seed of the weights.
        depth: The number of layers of the encoder. With more layers, the weights of its residual branches are smaller.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith(("attn.proj", "mlp.lin2")) or ("backbone" in name and name.endswith("mlp.proj_out")):
                    std /= math.sqrt(2 * depth)
                nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=module.in_channels**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        decoder: Any = model.mask_decoder
        for name, module in decoder.named_modules():
            if ("_token_to_image" in name and hasattr(module, "k_proj")) or name.endswith("image_to_token"):
                # If queries and keys have the same projection, a click attends to its own place from the first step.
                module.q_proj.weight.mul_(1.5)
                module.k_proj.weight.copy_(module.q_proj.weight)


def sinusoidal_positions(grid: int, channels: int) -> Tensor:
    """Return sine and cosine features of rows and columns.

    Args:
        grid: The number of rows and columns.
        channels: The number of features of a cell; a multiple of 4.

    Returns:
        (1, grid, grid, channels).
    """
    quarter = channels // 4
    rate = 1.0 / 100 ** (torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * rate
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2)[None]


def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Return softmax(query key^T / sqrt(channels)) value, computed in bfloat16.

    With few tokens and channels, two matrix products and a softmax take two thirds of the CPU time of
    `scaled_dot_product_attention`, which this function replaces.

    Args:
        query: (batch, heads, queries, channels).
        key: (batch, heads, tokens, channels).
        value: (batch, heads, tokens, channels).
        **_: Other arguments of `scaled_dot_product_attention`, which are ignored.

    Returns:
        (batch, heads, queries, channels) bfloat16.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        attended: Tensor = ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(-1) @ value
        return attended


def load_weights(folder: Path, model: Any) -> dict[str, Tensor]:
    """Return the weights of a checkpoint.

    The checkpoint's input may have another size. SAM's position embedding is then interpolated to the model's size.

    Args:
        folder: The folder of the checkpoint.
        model: A model of the same architecture.
    """
    weights: dict[str, Tensor] = type(model).from_pretrained(folder).state_dict()
    for name, weight in model.state_dict().items():
        if weight.shape != weights[name].shape:
            positions = weights[name].permute(0, 3, 1, 2)
            weights[name] = F.interpolate(positions, weight.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
    return weights


def save_checkpoint(model: Any, folder: Path) -> None:
    """Write a checkpoint that `from_pretrained` can read. Files are written to another folder first, then moved.

    Its config contains the default params of the starter models.

    Args:
        model: The model.
        folder: The folder of the checkpoint.
    """
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    model.config.task_specific_params = {TASK: DEFAULT_PARAMS}
    families.save(families.wrap(model), part)
    folder.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.replace(folder / file.name)
    part.rmdir()
