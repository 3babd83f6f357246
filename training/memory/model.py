"""A SAM 2 for videos with the weights of a SAM 2 for images, and new memory parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Sam2VideoConfig, Sam2VideoModel

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.families.sam2_video import Sam2Video
from sam_endpoint.training import network
from sam_endpoint.training.sam2 import Sam2Network

VISIBLE = 4.0  # first logit of the probability that an object is visible
# Parts that the images' results depend on. They keep their weights.
FROZEN = ("vision_encoder.", "prompt_encoder.", "shared_image_embedding.", "no_memory_embedding", "mask_decoder.")
# This part of the mask decoder decides whether an object is visible. The results of images do not depend on it.
VISIBILITY = "mask_decoder.pred_obj_score_head."


def video_config(side: int, memories: int = 3, layers: int = 2) -> Sam2VideoConfig:
    """Return the architecture of the starter checkpoint with memory parts.

    A frame attends to few memories, in half as many channels as the published checkpoints have. So a frame of an object
    takes about as long as the encoding of the frame.

    Args:
        side: The side of the input in pixels.
        memories: The number of memories that an object attends to, with that of the prompt.
        layers: The number of layers of the memory attention.
    """
    image: Any = Sam2Network.config(image_size=side)
    width, grid = image.prompt_encoder_config.hidden_size, side // network.PATCH_SIZE
    return Sam2VideoConfig(
        vision_config=image.vision_config.to_dict(),
        prompt_encoder_config=image.prompt_encoder_config.to_dict(),
        mask_decoder_config=image.mask_decoder_config.to_dict(),
        image_size=side,
        num_maskmem=memories,
        multimask_output_for_tracking=False,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=layers,
        memory_attention_downsample_rate=2,
        memory_attention_feed_forward_hidden_size=4 * width,
        memory_attention_dropout=0.0,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_attention_rope_dropout=0.0,
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=width // 2,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
        memory_fuser_layer_scale_init_value=0.1,
    )


def create(config: Sam2VideoConfig, start: Path, seed: int) -> Any:
    """Return a model for videos.

    Args:
        config: The architecture.
        start: The folder of a SAM 2 for images, or of a SAM 2 for videos, whose weights the model takes. Its input may
            have another size.
        seed: The seed of the weights that the checkpoint does not hold.

    Raises:
        BadData: The checkpoint has another architecture.
    """
    torch.manual_seed(seed)
    model: Any = Sam2VideoModel(config).eval()
    _initialize(model)
    missing, unexpected = model.load_state_dict(load_file(start / "model.safetensors"), strict=False)
    is_frozen = [name for name in missing if name.startswith(FROZEN)]
    if unexpected or is_frozen:
        raise BadData(f"'{start}' is not a checkpoint of this architecture: {[*unexpected, *is_frozen][:3]}")
    if "no_object_pointer" in missing:  # a checkpoint for images, in which the visibility has no trained weights
        with torch.no_grad():
            model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(VISIBLE)
    return model


def trainable(model: Any) -> dict[str, nn.Parameter]:
    """Return the weights to train, by name: all weights that the results of images do not depend on."""
    return {
        name: weight
        for name, weight in model.named_parameters()
        if name.startswith(VISIBILITY) or not name.startswith(FROZEN)
    }


def scale_rotation(family: Sam2Video, side: int) -> None:
    """Let the memory attention of a smaller input rotate its tokens as in an input of `side` pixels.

    Weights that are trained with a small input are then valid for the larger input.
    """
    attention = family.prompt_model.memory_attention
    factor = side / family.input_size
    attention.position_ids = (attention.position_ids + 0.5) * factor - 0.5


def _initialize(model: Any) -> None:
    """Initialise the memory parts in place. transformers initialises them near zero, or leaves zeros."""
    with torch.no_grad():
        for name in (
            "no_object_pointer",
            "occlusion_spatial_embedding_parameter",
            "memory_temporal_positional_encoding",
        ):
            nn.init.trunc_normal_(getattr(model, name), std=0.02)
        for name in ("memory_attention", "memory_encoder", "object_pointer_proj", "mask_downsample"):
            for module in getattr(model, name).modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                elif isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                else:
                    continue
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
