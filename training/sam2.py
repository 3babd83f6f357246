"""A small SAM 2 for training: architecture, initial weights and forward pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model

from sam_endpoint.training.network import PATCH_SIZE, Features, Network, initialize_weights, sinusoidal_positions
from sam_endpoint.training.options import IMAGE_SIZE

STRIDE = 2  # pixels between tokens of the first stage; the published models have 4, and an input four times as large
STEP = PATCH_SIZE // STRIDE  # tokens of the first stage along a side of a grid cell


class Sam2Network(Network):
    """A small SAM 2. Images are stretched to the square input."""

    stretched = True

    @staticmethod
    def config(
        channels: int = 32,
        blocks: tuple[int, ...] = (1, 2, 6, 2),
        global_blocks: tuple[int, ...] = (5, 8),
        width: int = 128,
        *,
        image_size: int = IMAGE_SIZE,
    ) -> Sam2Config:
        """Return the architecture.

        Args:
            channels: The number of channels of the encoder's first stage; each further stage has twice as many.
            blocks: The number of blocks of each stage.
            global_blocks: The indices of the blocks with global attention; the others have windows.
            width: The number of channels of the embedding and the decoder.
            image_size: The side of the input in pixels.
        """
        stages = [channels * 2**stage for stage in range(4)]
        sides = [image_size // STRIDE // 2**stage for stage in range(3)]
        return Sam2Config(
            vision_config={
                "model_type": "sam2_vision_model",
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": channels,
                    "image_size": [image_size, image_size],
                    "patch_kernel_size": [7, 7],
                    "patch_stride": [STRIDE, STRIDE],
                    "patch_padding": [3, 3],
                    "blocks_per_stage": list(blocks),
                    "embed_dim_per_stage": stages,
                    "num_attention_heads_per_stage": [1, 2, 4, 8],
                    "window_size_per_stage": [8, 8, 8, 8],
                    "window_positional_embedding_background_size": [8, 8],
                    "global_attention_blocks": list(global_blocks),
                },
                "backbone_channel_list": stages[::-1],
                "backbone_feature_sizes": [[side, side] for side in sides],
                "fpn_hidden_size": width,
            },
            prompt_encoder_config={"hidden_size": width, "image_size": image_size, "patch_size": PATCH_SIZE},
            mask_decoder_config={
                "hidden_size": width,
                "mlp_dim": 4 * width,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": width,
            },
        )

    @classmethod
    def create(cls, config: Any, seed: int) -> Sam2Network:
        """Return a network with random weights."""
        config._attn_implementation = "sdpa"
        model: Any = Sam2Model(config)
        backbone, shared = model.vision_encoder.backbone, model.shared_image_embedding
        initialize_weights(model, seed, len(backbone.blocks))
        with torch.no_grad():
            shared.positional_embedding.normal_()
            model.prompt_encoder.shared_embedding.positional_embedding.copy_(shared.positional_embedding)
            for positions in (backbone.pos_embed, backbone.pos_embed_window):
                positions.copy_(sinusoidal_positions(positions.shape[2], positions.shape[1]).permute(0, 3, 1, 2) * 0.5)
        # Only videos use this score, which predicts whether the object is visible at all.
        model.mask_decoder.pred_obj_score_head.requires_grad_(False)
        return cls(model)

    def patch_positions(self, grid: int, corner: tuple[int, int]) -> Tensor:
        """Return a window of the encoder's position embedding, (1, STEP * grid, STEP * grid, channels)."""
        backbone = self.model.vision_encoder.backbone
        side, row, column = STEP * grid, STEP * corner[0], STEP * corner[1]
        whole = backbone.config.image_size[0] // STRIDE
        positions = F.interpolate(backbone.pos_embed, size=(whole, whole), mode="bicubic")
        positions = positions[:, :, row : row + side, column : column + side]
        tiles = side // backbone.pos_embed_window.shape[2]
        patch_positions: Tensor = (positions + backbone.pos_embed_window.tile(1, 1, tiles, tiles)).permute(0, 2, 3, 1)
        return patch_positions

    def embed(self, pixels: Tensor, positions: Tensor) -> Features:
        """Encode images into three feature maps, the finest first."""
        backbone, neck = self.model.vision_encoder.backbone, self.model.vision_encoder.neck
        hidden = backbone.patch_embed(pixels) + positions
        stages = []
        for i, block in enumerate(backbone.blocks):
            hidden = block(hidden)
            if i in backbone.stage_ends:
                stages.append(hidden)
        levels, _ = neck(stages)
        coarse, middle, fine = levels[1:]
        decoder = self.model.mask_decoder
        embedding = coarse + self.model.no_memory_embedding.view(1, -1, 1, 1)
        return decoder.conv_s0(fine), decoder.conv_s1(middle), embedding

    def upscale(self, embedding: Tensor, fine: Features) -> Tensor:
        """Upscale the decoder's image tokens four times, and add the finer feature maps."""
        decoder = self.model.mask_decoder
        features = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(embedding) + fine[1]))
        upscaled: Tensor = decoder.activation(decoder.upscale_conv2(features) + fine[0])
        return upscaled

    def output_tokens(self) -> list[nn.Embedding]:
        """Return the output tokens of a SAM, after the token of the object score."""
        return [self.model.mask_decoder.obj_score_token, *super().output_tokens()]
