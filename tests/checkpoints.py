"""Small SAM and SAM2 checkpoints of the ordinary architecture, their weights drawn anew.

transformers initialises these families so close to zero that masks would be constant; see `redraw`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

SIDE = 256


def redraw(model: torch.nn.Module, seed: int) -> None:
    """Draws every weight: positions with deviation 1, the rest so that masks vary over the image."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "positional_embedding" in name:
                weight.normal_(0, 1.0, generator=generator)
            elif weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            elif "norm" not in name:
                weight.normal_(0, 0.02, generator=generator)


def save_sam(folder: Path, seed: int = 1) -> Path:
    model = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": 32,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 16,
                "output_channels": 32,
                "num_pos_feats": 16,
                "mlp_dim": 64,
                "window_size": 5,
                "global_attn_indexes": [1],
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 32,
            },
        )
    )
    redraw(model, seed)
    model.save_pretrained(folder)
    return folder


def save_sam2(folder: Path, seed: int = 2) -> Path:
    model = Sam2Model(
        Sam2Config(
            vision_config={
                "model_type": "sam2_vision_model",
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 16,
                    "image_size": [SIDE, SIDE],
                    "blocks_per_stage": [1, 1, 2, 1],
                    "embed_dim_per_stage": [16, 32, 64, 128],
                    "num_attention_heads_per_stage": [1, 1, 2, 2],
                    "window_size_per_stage": [8, 4, 7, 4],
                    "global_attention_blocks": [3],
                },
                "backbone_channel_list": [128, 64, 32, 16],
                "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
                "fpn_hidden_size": 32,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 2,
                "iou_head_hidden_dim": 32,
            },
        )
    )
    redraw(model, seed)
    model.save_pretrained(folder)
    return folder
