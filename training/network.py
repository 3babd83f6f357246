"""A small SAM: its configuration, its first weights, and its forward pass with every mask at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

IMAGE_SIZE = 256
PATCH_SIZE = 8
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def sam_config(
    hidden_size: int = 160,
    layers: int = 8,
    heads: int = 5,
    width: int = 128,
    global_layers: tuple[int, ...] = (3, 7),
    image_size: int = IMAGE_SIZE,
) -> SamConfig:
    """The architecture; `width` is the embedding's, prompt encoder's and decoder's channel count."""
    vision = SamVisionConfig(
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=PATCH_SIZE,
        window_size=8,
        global_attn_indexes=list(global_layers),
        mlp_ratio=4.0,
        output_channels=width,
        num_pos_feats=width // 2,
        use_rel_pos=USE_REL_POS,
        initializer_range=0.02,
    )
    prompt = SamPromptEncoderConfig(hidden_size=width, image_size=image_size, patch_size=PATCH_SIZE)
    decoder = SamMaskDecoderConfig(
        hidden_size=width, mlp_dim=4 * width, num_attention_heads=4, iou_head_hidden_dim=width
    )
    return SamConfig(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )


USE_REL_POS = False


def new_model(config: SamConfig, seed: int) -> SamModel:
    """A model with weights drawn for training; transformers' own first weights are all but zero."""
    torch.manual_seed(seed)
    config._attn_implementation = "sdpa"
    model = SamModel(config)
    depth = len(model.vision_encoder.layers)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith(("attn.proj", "mlp.lin2")):
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
        for name, module in model.mask_decoder.named_modules():
            if ("_token_to_image" in name and hasattr(module, "k_proj")) or name.endswith("image_to_token"):
                # Queries and keys projected alike: from the first step a click attends to the place it stands on.
                module.q_proj.weight.mul_(1.5)
                module.k_proj.weight.copy_(module.q_proj.weight)
        model.shared_image_embedding.positional_embedding.normal_()
        position: Any = model.vision_encoder.pos_embed
        position.copy_(waves(position.shape[1], position.shape[3]) * 0.5)
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.requires_grad_(False)
    return model


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


class Segmenter(nn.Module):
    """Embeds and decodes with gradients, on the whole input or on a square window of it.

    Windowed training looks at a part of the embedding grid only (`corner`: its first row and column, in grid cells),
    with the positions the part has in the whole; so a quarter of the input costs less than a quarter of the time and
    everything learnt stays valid for the whole.
    """

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.model = model

    def embed(self, pixels: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """(batch, 3, side, side) normalised pixels to (batch, width, side / 8, side / 8) embeddings."""
        encoder: Any = self.model.vision_encoder
        grid, (row, column) = pixels.shape[-1] // PATCH_SIZE, corner
        hidden = encoder.patch_embed.projection(pixels).permute(0, 2, 3, 1)
        hidden = hidden + encoder.pos_embed[:, row : row + grid, column : column + grid]
        for layer in encoder.layers:
            hidden = layer(hidden)
        return encoder.neck(hidden)

    def positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """The positional embedding (1, width, grid, grid) of a window."""
        row, column = corner
        whole = self.model.get_image_wide_positional_embeddings()
        return whole[:, :, row : row + grid, column : column + grid]

    def decode(
        self, embeddings: Tensor, positions: Tensor, sparse: Tensor, mask_inputs: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Every mask of every prompt: logits (prompts, 4, side, side) and predicted IoU (prompts, 4); mask 0 is the
        single mask, masks 1 to 3 the alternatives.

        `embeddings` (images, width, grid, grid); `sparse` (prompts, tokens, width), prompts ordered by image;
        `mask_inputs` (prompts, 1, side, side) logits, used where `has_mask` (prompts,) is true.
        """
        encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        prompts, repeat = sparse.shape[0], sparse.shape[0] // embeddings.shape[0]
        dense = torch.where(
            has_mask[:, None, None, None],
            encoder.mask_embed(mask_inputs),
            encoder.no_mask_embed.weight[:, :, None, None],
        )
        image = embeddings.repeat_interleave(repeat, 0) + dense
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(prompts, -1, -1), sparse], dim=1)[:, None]
        tokens, image_tokens = decoder.transformer(
            point_embeddings=tokens,
            image_embeddings=image,
            image_positional_embeddings=positions.expand(prompts, -1, -1, -1),
            attention_similarity=None,
        )
        features = image_tokens.transpose(2, 3).reshape(image.shape)
        features = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(features)))
        features = decoder.activation(decoder.upscale_conv2(features))
        heads = [mlp(tokens[:, 0, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        logits = torch.einsum("pmc,pchw->pmhw", torch.stack(heads, dim=1), features)
        return logits.float(), decoder.iou_prediction_head(tokens[:, 0, 0]).float()


def export(model: SamModel, folder: Path) -> None:
    """Write the checkpoint as `from_pretrained` reads it; every file appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    model.save_pretrained(part)
    config: Any = model.config
    size = config.vision_config.image_size
    SamImageProcessorPil(
        size={"longest_edge": size},
        pad_size={"height": size, "width": size},
        mask_size={"longest_edge": size // 2},
        mask_pad_size={"height": size // 2, "width": size // 2},
        image_mean=list(PIXEL_MEAN),
        image_std=list(PIXEL_STD),
    ).save_pretrained(part)
    folder.mkdir(parents=True, exist_ok=True)
    for file in part.iterdir():
        file.replace(folder / file.name)
    part.rmdir()
