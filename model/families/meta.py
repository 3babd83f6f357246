"""Load Meta's checkpoint files, such as `sam_vit_b_01ec64.pth` and `sam2.1_hiera_tiny.pt`, as transformers models.

Names and sizes are those of the repositories facebookresearch/segment-anything and facebookresearch/sam2.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamConfig,
    SamModel,
)

from .memory_attention import create_buffers

SUFFIXES = (".pt", ".pth")
# Regular expressions for Meta's names, and their replacements by transformers' names. These apply to SAM and SAM 2.
NAMES = (
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "shared_image_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(_mlps\.\d+|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d+|_head)\.layers\.2\.", r"\1.proj_out."),
    (r"(_mlps\.\d+|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
)
SAM_NAMES = (
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
)
SAM2_NAMES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.out_proj\.", ".o_proj."),
    (r"^no_mem_embed$", "no_memory_embedding"),
)
# The parts with which SAM 2 tracks objects through a video. These patterns are applied before the other patterns.
SAM2_MEMORY_NAMES = (
    *((rf"\.mask_downsampler\.encoder\.{3 * i}\.", f".mask_downsampler.layers.{i}.conv.") for i in range(4)),
    *((rf"\.mask_downsampler\.encoder\.{3 * i + 1}\.", f".mask_downsampler.layers.{i}.layer_norm.") for i in range(4)),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.gamma$", ".scale"),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"^(memory_\w+)((\.memory_fuser\.layers\.\d)?)\.norm\.", r"\1\2.layer_norm."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.layers\.0\.", "object_pointer_proj.proj_in."),
    (r"^obj_ptr_proj\.layers\.1\.", "object_pointer_proj.layers.0."),
    (r"^obj_ptr_proj\.layers\.2\.", "object_pointer_proj.proj_out."),
)
# Number of channels of the first layer -> number of layers, number of heads, indices of layers with global attention.
SAM_SIZES = {
    768: (12, 12, (2, 5, 8, 11)),
    1024: (24, 16, (5, 11, 17, 23)),
    1280: (32, 16, (7, 15, 23, 31)),
}
# Number of channels of the first layer and number of blocks -> blocks per stage, heads of the first stage, indices of
# blocks with global attention, window size per stage, side of the background position embedding.
SAM2_SIZES = {
    (96, 12): ((1, 2, 7, 2), 1, (5, 7, 9), (8, 4, 14, 7), 7),
    (96, 16): ((1, 2, 11, 2), 1, (7, 10, 13), (8, 4, 14, 7), 7),
    (112, 24): ((2, 3, 16, 3), 2, (12, 16, 20), (8, 4, 14, 7), 14),
    (144, 48): ((2, 6, 36, 4), 2, (23, 33, 43), (8, 4, 16, 8), 7),
}
SUPPORTED = "SAM vit_b, vit_l, vit_h and SAM 2 and 2.1 hiera tiny, small, base-plus, large"


def load(path: Path) -> PreTrainedModel:
    """Load one of Meta's files as a transformers model.

    Args:
        path: the `.pt` or `.pth` file.

    Returns:
        The model, with float32 weights on the CPU.

    Raises:
        ValueError: the file is not one of Meta's, holds anything but tensors, or has missing, unexpected or wrongly
            shaped tensors.
    """
    tensors = read_tensors(path)
    architecture = detect_architecture(tensors)
    if architecture is None:
        raise ValueError(f"checkpoint '{path}' is not one of Meta's; this project supports {SUPPORTED}")
    model_class, config = architecture
    with torch.device("meta"):
        model = model_class(config)
    state = rename_tensors(tensors, model_class)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    mismatches = {
        "missing tensors": sorted(shapes.keys() - state.keys()),
        "unexpected tensors": sorted(state.keys() - shapes.keys()),
        "tensors of another shape": sorted(
            name for name in state if tuple(state[name].shape) != shapes.get(name, state[name].shape)
        ),
    }
    if any(mismatches.values()):
        raise ValueError(
            f"checkpoint '{path}' has {describe_mismatches(mismatches)}; this project supports {SUPPORTED}"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    create_buffers(model)
    return model


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file without running code that the file may hold.

    Args:
        path: the file.

    Returns:
        The tensors by the names in the file.

    Raises:
        ValueError: the file is not a PyTorch file, or holds anything but tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        pickled_class = re.search(r"GLOBAL (\S+)", str(error))
        held = f"a pickled object ({pickled_class[1]})" if pickled_class else "something that is not a tensor"
        raise ValueError(f"checkpoint '{path}' holds {held}, which could run code; only tensors are read") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).strip() or "the file is truncated").splitlines()[0]
        raise ValueError(f"checkpoint '{path}' is not a PyTorch file: {reason}") from None
    tensors = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"checkpoint '{path}' is not a dictionary of tensors; this project supports {SUPPORTED}")
    return tensors


def detect_architecture(tensors: dict[str, Tensor]) -> tuple[type[PreTrainedModel], Any] | None:
    """Find the architecture of one of Meta's checkpoints.

    Args:
        tensors: tensors by Meta's names.

    Returns:
        transformers' model class and config, or None if the architecture is not supported.
    """
    if (patch := tensors.get("image_encoder.trunk.patch_embed.proj.weight")) is not None:
        depth = len({name.split(".")[3] for name in tensors if name.startswith("image_encoder.trunk.blocks.")})
        sam2_size = SAM2_SIZES.get((patch.shape[0], depth))
        if sam2_size is None:
            return None
        config = sam2_config(patch.shape[0], *sam2_size)
        if "maskmem_tpos_enc" not in tensors:
            return Sam2Model, config
        return Sam2VideoModel, Sam2VideoConfig(
            vision_config=config.vision_config,
            enable_occlusion_spatial_embedding="no_obj_embed_spatial" in tensors,  # absent in SAM 2.0
            enable_temporal_pos_encoding_for_object_pointers="obj_ptr_tpos_proj.weight" in tensors,
        )
    if (patch := tensors.get("image_encoder.patch_embed.proj.weight")) is not None:
        sam_size = SAM_SIZES.get(patch.shape[0])
        return sam_size and (SamModel, sam_config(patch.shape[0], *sam_size))
    return None


def sam_config(channels: int, layers: int, heads: int, global_layers: tuple[int, ...]) -> SamConfig:
    """Return the config of a SAM model. The arguments are a key and its value in `SAM_SIZES`."""
    return SamConfig(
        vision_config={
            "hidden_size": channels,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "global_attn_indexes": list(global_layers),
        }
    )


def sam2_config(
    channels: int,
    blocks: tuple[int, ...],
    heads: int,
    global_blocks: tuple[int, ...],
    windows: tuple[int, ...],
    background: int,
) -> Sam2Config:
    """Return the config of a SAM 2 model. The arguments are `channels` and a value in `SAM2_SIZES`."""
    stages = [channels * 2**stage for stage in range(4)]
    return Sam2Config(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": channels,
                "num_attention_heads": heads,
                "blocks_per_stage": list(blocks),
                "embed_dim_per_stage": stages,
                "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
                "global_attention_blocks": list(global_blocks),
                "window_size_per_stage": list(windows),
                "window_positional_embedding_background_size": [background, background],
            },
            "backbone_channel_list": stages[::-1],
        }
    )


def rename_tensors(tensors: dict[str, Tensor], model_class: type[PreTrainedModel]) -> dict[str, Tensor]:
    """Convert Meta's names of tensors to transformers' names.

    Args:
        tensors: tensors by Meta's names.
        model_class: transformers' class of the model.

    Returns:
        Tensors by transformers' names.
    """
    is_sam2 = model_class is not SamModel
    patterns = (*SAM2_MEMORY_NAMES, *NAMES, *SAM2_NAMES) if is_sam2 else (*NAMES, *SAM_NAMES)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    if (positions := state.get("shared_image_embedding.positional_embedding")) is not None:
        state["prompt_encoder.shared_embedding.positional_embedding"] = positions.clone()
    if is_sam2:  # transformers keeps the four point embeddings in one tensor
        rows = [name for i in range(4) if (name := f"prompt_encoder.point_embed.{i}.weight") in state]
        if rows:
            state["prompt_encoder.point_embed.weight"] = torch.cat([state.pop(name) for name in rows])
    return state


def describe_mismatches(mismatches: dict[str, list[str]]) -> str:
    """Format the names of wrong tensors for an error message: the first five of each kind.

    Args:
        mismatches: names by kind of fault.

    Example:
        >>> describe_mismatches({"missing tensors": ["a", "b"], "unexpected tensors": []})
        'missing tensors: a, b'
    """
    parts = []
    for fault, names in mismatches.items():
        if names:
            remainder = f" and {len(names) - 5} more" if len(names) > 5 else ""
            parts.append(f"{fault}: {', '.join(names[:5])}{remainder}")
    return "; ".join(parts)
