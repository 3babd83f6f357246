"""A small SAM for training: architecture, initial weights and forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

from sam_endpoint.training.network import PATCH_SIZE, Features, Network, initialize_weights, sinusoidal_positions
from sam_endpoint.training.options import IMAGE_SIZE


def _window(grid: int) -> int:
    """Return the side of attention windows that fill a grid of tokens: 8 if it fits, else the largest up to 14."""
    return max((side for side in range(1, 15) if grid % side == 0), key=lambda side: (side == 8, side))


class SamNetwork(Network):
    """A small SAM. Images are padded to the square input."""

    stretched = False

    @staticmethod
    def config(
        hidden_size: int = 160,
        layers: int = 8,
        heads: int = 5,
        width: int = 128,
        global_layers: tuple[int, ...] = (3, 7),
        *,
        image_size: int = IMAGE_SIZE,
    ) -> SamConfig:
        """Return the architecture.

        Args:
            hidden_size: The number of channels of the encoder.
            layers: The number of layers of the encoder.
            heads: The number of attention heads of the encoder.
            width: The number of channels of the embedding and the decoder.
            global_layers: The indices of the encoder's layers with global attention; the others have windows.
            image_size: The side of the input in pixels.
        """
        vision = SamVisionConfig(
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=image_size,
            patch_size=PATCH_SIZE,
            window_size=_window(image_size // PATCH_SIZE),
            global_attn_indexes=list(global_layers),
            mlp_ratio=4.0,
            output_channels=width,
            num_pos_feats=width // 2,
            use_rel_pos=False,
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

    @classmethod
    def create(cls, config: Any, seed: int) -> SamNetwork:
        """Return a network with random weights."""
        config._attn_implementation = "sdpa"
        model: Any = SamModel(config)
        initialize_weights(model, seed, len(model.vision_encoder.layers))
        positions, shared = model.vision_encoder.pos_embed, model.shared_image_embedding
        with torch.no_grad():
            shared.positional_embedding.normal_()
            positions.copy_(sinusoidal_positions(positions.shape[1], positions.shape[3]) * 0.5)
        model.prompt_encoder.shared_embedding.positional_embedding = shared.positional_embedding
        shared.positional_embedding.requires_grad_(False)
        return cls(model)

    def patch_positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return a window of the learnt position embedding, (1, grid, grid, channels)."""
        row, column = corner
        whole: Tensor = self.model.vision_encoder.pos_embed
        return whole[:, row : row + grid, column : column + grid]

    def embed(self, pixels: Tensor, positions: Tensor) -> Features:
        """Encode images into one feature map."""
        encoder = self.model.vision_encoder
        hidden = encoder.patch_embed.projection(pixels).permute(0, 2, 3, 1) + positions
        for layer in encoder.layers:
            hidden = layer(hidden)
        return (encoder.neck(hidden),)

    def upscale(self, embedding: Tensor, fine: Features) -> Tensor:
        """Upscale the decoder's image tokens four times."""
        decoder = self.model.mask_decoder
        features = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(embedding)))
        upscaled: Tensor = decoder.activation(decoder.upscale_conv2(features))
        return upscaled
