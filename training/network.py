"""The models that training needs: random weights, a forward pass that gives all masks at once, checkpoint files."""

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
from sam_endpoint.training.options import IMAGE_SIZE

PATCH_SIZE = 8
Features = tuple[Tensor, ...]  # each (images, channels, height, width), the embedding last


class Network(nn.Module, ABC):
    """A model that embeds and decodes with gradients, on the whole input or on a square window of it.

    A window is a part of the embedding grid; its `corner` is the first row and column, in grid cells. The window has
    the positions that it has in the whole input. So a quarter of the input costs less than a quarter of the time, and
    the weights learnt on it are valid for the whole.

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
        """Return the architecture of the embedded checkpoint; families have arguments for further sizes."""

    @classmethod
    @abstractmethod
    def create(cls, config: Any, seed: int) -> Network:
        """Return a model with random weights that suit training."""

    @abstractmethod
    def patch_positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return the positional embedding that the image encoder adds to the patches of a window of `grid` cells."""

    @abstractmethod
    def embed(self, pixels: Tensor, positions: Tensor) -> Features:
        """Encode normalised pixels (images, 3, side, side) at these patch positions into features for `decode`."""

    @abstractmethod
    def upscale(self, embedding: Tensor, fine: Features) -> Tensor:
        """Upscale features (prompts, width, grid, grid) to (prompts, width / 8, 4 grid, 4 grid)."""

    def positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return the positional embedding (1, width, grid, grid) of a window for the decoder."""
        row, column = corner
        whole: Tensor = self.model.get_image_wide_positional_embeddings()
        return whole[:, :, row : row + grid, column : column + grid]

    def tokens(self, points: Tensor, labels: Tensor, boxes: Tensor | None) -> Tensor:
        """Embed prompts as tokens.

        Args:
            points: (prompts, n, 2).
            labels: (prompts, n).
            boxes: (prompts, 4), or None.

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
        tokens = tokens[:, 0, len(self.output_tokens()) - 2 :]  # those of the score and the masks
        upscaled = self.upscale(
            image_tokens.transpose(2, 3).reshape(image.shape),
            tuple(part.repeat_interleave(repeat, 0) for part in fine),
        )
        heads = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.einsum("pmc,pchw->pmhw", torch.stack(heads, dim=1), upscaled)
        return logits.float(), decoder.iou_prediction_head(tokens[:, 0]).float()

    def output_tokens(self) -> list[nn.Embedding]:
        """Return the decoder's output tokens; those of the score and the masks are the last two."""
        return [self.model.mask_decoder.iou_token, self.model.mask_decoder.mask_tokens]


def initialize_weights(model: PreTrainedModel, seed: int, depth: int) -> None:
    """Initialise all weights but those of positions at random; transformers initialises them near zero.

    Args:
        depth: The number of layers of the encoder. The more there are, the smaller its residual branches start.
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
                # With the same projection of queries and keys a click attends to its own place from the first step.
                module.q_proj.weight.mul_(1.5)
                module.k_proj.weight.copy_(module.q_proj.weight)


def sinusoidal_positions(grid: int, channels: int) -> Tensor:
    """Return sine and cosine features of rows and columns, (1, grid, grid, channels)."""
    quarter = channels // 4
    rate = 1.0 / 100 ** (torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * rate
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2)[None]


def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """Return softmax(query key^T / sqrt(channels)) value in bfloat16, (batch, heads, tokens, channels) each.

    With few tokens and channels, two matrix products and a softmax take two thirds of the CPU time of
    `scaled_dot_product_attention`.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        attended: Tensor = ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(-1) @ value
        return attended


def load_weights(folder: Path, model: Any) -> dict[str, Tensor]:
    """Return the weights of a checkpoint of the model's architecture, for any size of input.

    SAM's positional embedding is interpolated to the size of the model's.
    """
    weights: dict[str, Tensor] = type(model).from_pretrained(folder).state_dict()
    for name, weight in model.state_dict().items():
        if weight.shape != weights[name].shape:
            positions = weights[name].permute(0, 3, 1, 2)
            weights[name] = F.interpolate(positions, weight.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
    return weights


def save_checkpoint(model: Any, folder: Path) -> None:
    """Write a checkpoint that `from_pretrained` reads; each file appears complete or not at all."""
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    families.save(families.wrap(model), part)
    folder.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.replace(folder / file.name)
    part.rmdir()
