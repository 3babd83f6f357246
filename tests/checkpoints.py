"""Small checkpoints of every model family, with the family's usual architecture and random weights.

transformers initialises the weights so close to zero that all masks would be constant. Therefore `randomize` draws them
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPTokenizer,
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    PreTrainedConfig,
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam3Config,
    Sam3LiteTextConfig,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3VideoConfig,
    Sam3VideoModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamModel,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.sam3.modeling_sam3 import Sam3Model
from transformers.models.sam3_lite_text.modeling_sam3_lite_text import Sam3LiteTextModel
from transformers.utils.generic import ModelOutput

SIDE = 256  # of the model's input, in pixels


def strengthen_memory(model: torch.nn.Module) -> None:
    """Change random weights so that objects are visible in most frames, and memories change their masks."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("cross_attn_image.v_proj.weight", "cross_attn_image.o_proj.weight")):
                weight.mul_(2.5)
            elif name.endswith("pred_obj_score_head.proj_out.weight"):
                weight.mul_(4)
            elif name.endswith("pred_obj_score_head.proj_out.bias"):
                weight.add_(1)


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Draw every weight from a normal distribution, so that masks vary over the image."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if not weight.is_floating_point():
                continue
            if "positional_embedding" in name:
                weight.normal_(0, 1.0, generator=generator)
            elif weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
            elif "norm" not in name:
                weight.normal_(0, 0.02, generator=generator)


SAM_VISION = {
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
}
PROMPT_ENCODER = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16}
MASK_DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
SAM3_SIDE = 252
SAM3_VISION = {
    "model_type": "sam3_vision_model",
    "backbone_config": {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": SAM3_SIDE,
        "patch_size": 14,
        "window_size": 6,
        "global_attn_indexes": [1],
        "pretrain_image_size": 84,
    },
    "fpn_hidden_size": 32,
    "backbone_feature_sizes": [[72, 72], [36, 36], [18, 18]],
}
SAM3_PROMPT_ENCODER = {"hidden_size": 32, "image_size": SAM3_SIDE, "patch_size": 14}
SMALL = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SAM3_DETECTOR: dict[str, Any] = {
    "vision_config": SAM3_VISION,
    "geometry_encoder_config": SMALL,
    "detr_encoder_config": SMALL,
    "detr_decoder_config": {**SMALL, "num_queries": 20},
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
}
LITE_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 32,
    "vocab_size": 520,
    "max_position_embeddings": 77,
}
CLIP_TEXT = {**LITE_TEXT, "max_position_embeddings": 32, "bos_token_id": 518, "eos_token_id": 519, "pad_token_id": 519}


def save_randomized(model: PreTrainedModel, seed: int, folder: Path) -> Path:
    """Randomize the weights of a model and save the model as transformers' published checkpoints are saved.

    Args:
        model: model to change and to save.
        seed: seed of the weights.
        folder: folder for `config.json` and `model.safetensors`.

    Returns:
        The folder.
    """
    randomize(model, seed)
    strengthen_memory(model)
    model.config.save_pretrained(folder)
    weights = {name: weight.contiguous().clone() for name, weight in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def save_sam(folder: Path, seed: int = 1) -> Path:
    """Save a small SAM with random weights, and return the folder."""
    config = SamConfig(vision_config=SAM_VISION, prompt_encoder_config=PROMPT_ENCODER, mask_decoder_config=MASK_DECODER)
    return save_randomized(SamModel(config), seed, folder)


def save_sam_of_published_shapes(folder: Path, seed: int = 7) -> Path:
    """Save a SAM with the published sizes of image, patch and features but one narrow layer, and return the folder."""
    config = SamConfig(
        vision_config={**SAM_VISION, "image_size": 1024, "output_channels": 256, "num_pos_feats": 128}
        | {"num_hidden_layers": 1, "global_attn_indexes": [], "window_size": 14},
        prompt_encoder_config={"hidden_size": 256, "image_size": 1024, "patch_size": 16},
        mask_decoder_config={"hidden_size": 256, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    )
    return save_randomized(SamModel(config), seed, folder)


def save_sam_hq(folder: Path, seed: int = 3) -> Path:
    """Save a small SAM-HQ with random weights, and return the folder."""
    config = SamHQConfig(
        vision_config=SAM_VISION,
        prompt_encoder_config=PROMPT_ENCODER,
        mask_decoder_config={**MASK_DECODER, "vit_dim": SAM_VISION["hidden_size"]},
    )
    return save_randomized(SamHQModel(config), seed, folder)


SAM2_VISION = {
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
}


def save_sam2(folder: Path, seed: int = 2) -> Path:
    """Save a small SAM 2 with random weights, and return the folder."""
    config = Sam2Config(
        vision_config=SAM2_VISION, prompt_encoder_config=PROMPT_ENCODER, mask_decoder_config=MASK_DECODER
    )
    return save_randomized(Sam2Model(config), seed, folder)


# The memory parts of all families. transformers' memory attention has a fixed number of 64 channels per memory.
CHANNELS = 128
MEMORY: dict[str, Any] = {
    "memory_attention_hidden_size": CHANNELS,
    "memory_attention_num_layers": 2,
    "memory_encoder_hidden_size": CHANNELS,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": CHANNELS,
    "memory_fuser_embed_dim": CHANNELS,
    "memory_fuser_intermediate_dim": 64,
}
VIDEO_DECODER = {**MASK_DECODER, "hidden_size": CHANNELS, "iou_head_hidden_dim": CHANNELS}


def save_sam2_video(folder: Path, seed: int = 16, side: int = SIDE, **options: Any) -> Path:
    """Save a small SAM 2 with memory parts, random weights and `side` as the side of its input. Return the folder."""
    backbone: Any = SAM2_VISION["backbone_config"]
    config = Sam2VideoConfig(
        vision_config={
            **SAM2_VISION,
            "backbone_config": {**backbone, "image_size": [side, side]},
            "backbone_feature_sizes": [[side // step, side // step] for step in (4, 8, 16)],
            "fpn_hidden_size": CHANNELS,
        },
        prompt_encoder_config={**PROMPT_ENCODER, "hidden_size": CHANNELS, "image_size": side},
        mask_decoder_config=VIDEO_DECODER,
        image_size=side,
        memory_attention_rope_feat_sizes=[side // 16, side // 16],
        memory_attention_feed_forward_hidden_size=64,
        **MEMORY | options,
    )
    return save_randomized(Sam2VideoModel(config), seed, folder)


def save_edgetam(folder: Path, seed: int = 4) -> Path:
    """Save a small EdgeTAM with random weights, and return the folder.

    The backbone is `Pyramid`. The backbone of the published checkpoint is in timm, which needs a matching torchvision.
    """
    AutoConfig.register("pyramid", PyramidConfig, exist_ok=True)
    AutoModel.register(PyramidConfig, Pyramid, exist_ok=True)
    config = EdgeTamConfig(
        vision_config={
            "model_type": "edgetam_vision_model",
            "backbone_config": {"model_type": "pyramid"},
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config=PROMPT_ENCODER,
        mask_decoder_config=MASK_DECODER,
    )
    return save_randomized(EdgeTamModel(config), seed, folder)


def save_edgetam_video(folder: Path, seed: int = 10) -> Path:
    """Save a small EdgeTAM with memory parts and random weights, and return the folder."""
    AutoConfig.register("pyramid", PyramidConfig, exist_ok=True)
    AutoModel.register(PyramidConfig, Pyramid, exist_ok=True)
    config = EdgeTamVideoConfig(
        vision_config={
            "model_type": "edgetam_vision_model",
            "backbone_config": {"model_type": "pyramid"},
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
            "fpn_hidden_size": CHANNELS,
        },
        prompt_encoder_config={**PROMPT_ENCODER, "hidden_size": CHANNELS},
        mask_decoder_config=VIDEO_DECODER,
        image_size=SIDE,
        memory_attention_rope_feat_sizes=[16, 16],
        memory_attention_rope_k_sizes=[4, 4],
        memory_attention_mlp_hidden_size=64,
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        **MEMORY,
    )
    return save_randomized(EdgeTamVideoModel(config), seed, folder)


class PyramidConfig(PreTrainedConfig):
    """Configuration of `Pyramid`."""

    model_type = "pyramid"


@dataclass
class PyramidOutput(ModelOutput):
    """Feature maps, in the field of timm's output that EdgeTAM reads."""

    last_hidden_state: list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class Pyramid(PreTrainedModel):
    """A backbone that returns feature maps as timm does: 8 to 64 channels at 1/4 to 1/32 of the image size."""

    config_class = PyramidConfig

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__(config)
        self.steps = torch.nn.ModuleList(
            torch.nn.Conv2d(before, after, stride + 1, stride, padding=stride // 2)
            for before, after, stride in ((3, 8, 4), (8, 16, 2), (16, 32, 2), (32, 64, 2))
        )
        self.post_init()  # type: ignore[no-untyped-call]  # transformers has no type hints there

    def forward(self, pixel_values: torch.Tensor, **_: object) -> PyramidOutput:
        """Return the feature maps of images, (n, 3, height, width)."""
        maps = [pixel_values]
        for step in self.steps:
            maps.append(step(maps[-1]).tanh())
        return PyramidOutput(last_hidden_state=maps[1:])


def save_sam3_tracker(folder: Path, seed: int = 5) -> Path:
    """Save a small SAM 3 tracker with random weights, and return the folder."""
    config = Sam3TrackerConfig(
        vision_config=SAM3_VISION, prompt_encoder_config=SAM3_PROMPT_ENCODER, mask_decoder_config=MASK_DECODER
    )
    return save_randomized(Sam3TrackerModel(config), seed, folder)


def save_sam3_video(folder: Path, seed: int = 6) -> Path:
    """Save a small SAM 3 with random weights, and return the folder.

    Like facebook/sam3, the checkpoint holds a detector and a tracker that share a vision encoder.
    """
    tracker = {
        "vision_config": SAM3_VISION,
        "prompt_encoder_config": SAM3_PROMPT_ENCODER,
        "mask_decoder_config": MASK_DECODER,
        "image_size": SAM3_SIDE,
        "memory_attention_hidden_size": 32,
        "memory_attention_num_layers": 1,
        "memory_attention_num_attention_heads": 1,
        "memory_attention_feed_forward_hidden_size": 64,
        "memory_attention_rope_feat_sizes": [18, 18],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "mask_downsampler_embed_dim": 32,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 64,
    }
    config = Sam3VideoConfig(detector_config={**SAM3_DETECTOR, "text_config": CLIP_TEXT}, tracker_config=tracker)
    save_sam3_tokenizer(folder)
    return save_randomized(Sam3VideoModel(config), seed, folder)


def save_sam3_memory(folder: Path, seed: int = 9) -> Path:
    """Save a small SAM 3 with random weights and a memory that changes masks, and return the folder.

    Like facebook/sam3, the checkpoint holds a detector and a tracker that share a vision encoder.
    """
    small = {"hidden_size": CHANNELS, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vision = {**SAM3_VISION, "fpn_hidden_size": CHANNELS}
    detector = {
        "vision_config": vision,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 32,
            "vocab_size": 100,
            "max_position_embeddings": 16,
            "eos_token_id": 2,
            "bos_token_id": 1,
            "pad_token_id": 0,
        },
        "geometry_encoder_config": small,
        "detr_encoder_config": small,
        "detr_decoder_config": {**small, "num_queries": 4},
        "mask_decoder_config": {"hidden_size": CHANNELS, "num_attention_heads": 2},
    }
    tracker = {
        "vision_config": vision,
        "prompt_encoder_config": {**SAM3_PROMPT_ENCODER, "hidden_size": CHANNELS},
        "mask_decoder_config": VIDEO_DECODER,
        "image_size": SAM3_SIDE,
        "memory_attention_rope_feat_sizes": [18, 18],
        "memory_attention_feed_forward_hidden_size": 64,
        **MEMORY,
    }
    config = Sam3VideoConfig(detector_config=detector, tracker_config=tracker)
    save_sam3_tokenizer(folder)
    return save_randomized(Sam3VideoModel(config), seed, folder)


def save_sam3(folder: Path, seed: int = 8) -> Path:
    """Save a small SAM 3 detector with random weights, and return the folder."""
    save_sam3_tokenizer(folder)
    config = Sam3Config(**SAM3_DETECTOR, text_config=CLIP_TEXT)
    return save_randomized(Sam3Model(config), seed, folder)


def save_sam3_lite_text(folder: Path, seed: int = 9) -> Path:
    """Save a small SAM 3 detector with the text encoder of SAM 3 LiteText, and return the folder."""
    save_sam3_tokenizer(folder)
    config = Sam3LiteTextConfig(**SAM3_DETECTOR, text_config=LITE_TEXT)
    return save_randomized(Sam3LiteTextModel(config), seed, folder)


def save_sam3_tokenizer(folder: Path) -> None:
    """Save a tokenizer like SAM 3's, whose vocabulary has no token longer than two letters."""
    letters = list(bytes_to_unicode().values())
    pairs: Any = [("c", "u"), ("p", "s</w>"), ("o", "r"), ("e", "n"), ("e", "d</w>"), ("s", "p")]
    names = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in pairs)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(names)}
    CLIPTokenizer(vocab=vocabulary, merges=pairs).save_pretrained(folder)


SAVERS: dict[str, Callable[[Path], Path]] = {
    "sam": save_sam,
    "sam2": save_sam2,
    "sam2_video": save_sam2_video,
    "sam_hq": save_sam_hq,
    "edgetam": save_edgetam,
    "edgetam_video": save_edgetam_video,
    "sam3_tracker": save_sam3_tracker,
    "sam3": save_sam3,
    "sam3_lite_text": save_sam3_lite_text,
    "sam3_video": save_sam3_video,
    "sam3_memory": save_sam3_memory,
}
