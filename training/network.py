"""What training asks of a model: its first weights, and a forward pass with every mask at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from model import families

IMAGE_SIZE = 256
PATCH_SIZE = 8
Features = tuple[Tensor, ...]  # each (images, channels, height, width), the embedding last


class Network(nn.Module, ABC):
    """A model embedding and decoding with gradients, on the whole input or on a square window of it.

    Windowed training looks at a part of the embedding grid only (`corner`: its first row and column, in grid cells),
    with the positions the part has in the whole; so a quarter of the input costs less than a quarter of the time and
    everything learnt stays valid for the whole.
    """

    stretched: ClassVar[bool]  # whether images fill the square input, or are padded to it

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @staticmethod
    @abstractmethod
    def config(*, image_size: int = IMAGE_SIZE) -> PreTrainedConfig:
        """The architecture of the embedded checkpoint; families take more of its sizes."""

    @classmethod
    @abstractmethod
    def new(cls, config: Any, seed: int) -> Network:
        """A model with weights drawn for training."""

    @abstractmethod
    def patch_positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """What the image encoder adds to the patches of a window of `grid` cells."""

    @abstractmethod
    def embed(self, pixels: Tensor, positions: Tensor) -> Features:
        """(images, 3, side, side) normalised pixels, at these patch positions, to what `decode` takes."""

    @abstractmethod
    def upscaled(self, embedding: Tensor, fine: Features) -> Tensor:
        """(prompts, width, grid, grid) to (prompts, width / 8, 4 grid, 4 grid) features."""

    def positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """The positional embedding (1, width, grid, grid) of a window."""
        row, column = corner
        whole = self.model.get_image_wide_positional_embeddings()
        return whole[:, :, row : row + grid, column : column + grid]

    def tokens(self, points: Tensor, labels: Tensor, boxes: Tensor | None) -> Tensor:
        """Points (prompts, n, 2) with labels (prompts, n), and boxes (prompts, 4), as (prompts, tokens, width)."""
        encoder = self.model.prompt_encoder
        found = encoder._embed_points(points[:, None].float(), labels[:, None], pad=boxes is None)[:, 0]
        return found if boxes is None else torch.cat([found, encoder._embed_boxes(boxes[:, None])[:, 0]], dim=1)

    def decode(
        self, features: Features, positions: Tensor, sparse: Tensor, mask_inputs: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every mask of every prompt: logits (prompts, 4, side, side) and predicted IoU (prompts, 4); mask 0 is the
        single mask, masks 1 to 3 the alternatives.

        `sparse` (prompts, tokens, width), prompts ordered by image; `mask_inputs` (prompts, 1, side, side) logits,
        used where `has_mask` (prompts,) is true.
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
        own = torch.cat([token.weight for token in self.own_tokens()])
        tokens = torch.cat([own.expand(prompts, -1, -1), sparse], dim=1)[:, None]
        tokens, image_tokens = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=image,
            image_positional_embeddings=positions.expand(prompts, -1, -1, -1),
            attention_similarity=None,
        )
        tokens = tokens[:, 0, len(self.own_tokens()) - 2 :]  # the score's and the masks'
        upscaled = self.upscaled(
            image_tokens.transpose(2, 3).reshape(image.shape),
            tuple(part.repeat_interleave(repeat, 0) for part in fine),
        )
        heads = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.einsum("pmc,pchw->pmhw", torch.stack(heads, dim=1), upscaled)
        return logits.float(), decoder.iou_prediction_head(tokens[:, 0]).float()

    def own_tokens(self) -> list[nn.Embedding]:
        """The decoder's own tokens, the score's and the masks' last."""
        return [self.model.mask_decoder.iou_token, self.model.mask_decoder.mask_tokens]


def draw(model: PreTrainedModel, seed: int, depth: int) -> None:
    """Draws all but the position weights; transformers' own first weights are all but zero. `depth`: layers of the
    encoder, whose residual branches start the smaller the more there are."""
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
                # Queries and keys projected alike: from the first step a click attends to the place it stands on.
                module.q_proj.weight.mul_(1.5)
                module.k_proj.weight.copy_(module.q_proj.weight)


def waves(grid: int, channels: int) -> Tensor:
    """Sine and cosine position features (1, grid, grid, channels), a quarter each for x, y, sine, cosine."""
    quarter = channels // 4
    rate = 1.0 / 100 ** (torch.arange(quarter) / quarter)
    angle = torch.arange(grid)[:, None] * rate
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = axis[:, None].expand(grid, grid, -1)
    columns = axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=2)[None]


def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """softmax(query key^T / sqrt(channels)) value in bfloat16, (batch, heads, tokens, channels) each.

    Two matrix products and a softmax: with so few tokens and channels a training step on a processor spends two thirds
    of the time in them that it spends in `scaled_dot_product_attention`.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        return ((query * query.shape[-1] ** -0.5) @ key.mT).softmax(-1) @ value


def fitted(folder: Path, model: Any) -> dict[str, Tensor]:
    """The weights of a checkpoint of the same architecture, of any input's side: SAM's positions are interpolated."""
    weights: dict[str, Tensor] = type(model).from_pretrained(folder).state_dict()
    for name, weight in model.state_dict().items():
        if weight.shape != weights[name].shape:
            there = weights[name].permute(0, 3, 1, 2)
            weights[name] = F.interpolate(there, weight.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
    return weights


def export(model: Any, folder: Path) -> None:
    """Write the checkpoint as `from_pretrained` reads it; every file appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    families.save(families.of(model), part)
    folder.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.replace(folder / file.name)
    part.rmdir()
