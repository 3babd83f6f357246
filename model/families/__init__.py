"""Load checkpoints of the supported model families. Each family has a module with a subclass of `family.Family`."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers.image_processing_base import ImageProcessingMixin

from . import meta
from .edgetam import EdgeTam, EdgeTamVideo
from .family import Family
from .memory_attention import create_buffers
from .sam import Sam
from .sam2 import Sam2
from .sam2_video import Sam2Video
from .sam3 import Sam3, Sam3Detector, Sam3LiteText
from .sam3_tracker import Sam3Tracker, Sam3TrackerVideo
from .sam_hq import SamHq

FAMILIES: dict[str, type[Family]] = {  # by the config's `model_type`
    "sam": Sam,
    "sam2": Sam2,
    "sam2_video": Sam2Video,  # the type in the configs of the published sam2 and sam2.1 checkpoints
    "sam_hq": SamHq,
    "edgetam": EdgeTam,
    "edgetam_video": EdgeTamVideo,
    "sam3_tracker": Sam3Tracker,
    "sam3_tracker_video": Sam3TrackerVideo,
    "sam3": Sam3Detector,
    "sam3_lite_text": Sam3LiteText,
    "sam3_video": Sam3,  # the type in the config of facebook/sam3
}


def load(checkpoint: str, device: str | torch.device = "cpu") -> Family:
    """Load a checkpoint.

    Args:
        checkpoint: a Hugging Face id, a checkpoint folder, or one of Meta's `.pt` or `.pth` files.
        device: the device for the weights.

    Returns:
        The model, with float32 weights.

    Raises:
        ValueError: the checkpoint does not exist or belongs to no supported family; tensors are missing, unexpected or
            of another shape; the file holds anything but tensors; or packages that the family needs are not installed.

    Example:
        >>> family = load("checkpoints/sam-tiny")
        >>> family.name, family.low_res_size
        ('sam', (180, 180))
    """
    if Path(checkpoint).suffix in meta.SUFFIXES and not Path(checkpoint).is_dir():
        model: Any = meta.load(Path(checkpoint))
        processing: dict[str, Any] = {}
    else:
        model, processing = _load_pretrained(checkpoint)
    model.requires_grad_(False)
    family = wrap(model.eval().to(device), processing)
    family.load_files(checkpoint)
    return family


def wrap(model: Any, processing: dict[str, Any] | None = None) -> Family:
    """Wrap a transformers model in the class of its family.

    Args:
        model: a model of one of the classes `Family.model_class`. Its layers are replaced by faster layers with the
            same weights.
        processing: the content of the checkpoint's `preprocessor_config.json`; None for the family's usual values.
    """
    family = next(family for family in FAMILIES.values() if family.model_class is type(model))
    return family(model, processing or {})


def _load_pretrained(checkpoint: str) -> tuple[Any, dict[str, Any]]:
    """Load the model and the `preprocessor_config.json` of a Hugging Face id or folder."""
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint '{checkpoint}': no transformers model found there: {reason}") from None
    supported = f"this project supports {', '.join(FAMILIES)}, and Meta's files of {meta.SUPPORTED}"
    if config.model_type not in FAMILIES:
        raise ValueError(f"checkpoint '{checkpoint}' is a '{config.model_type}'; {supported}")
    family = FAMILIES[config.model_type]
    mismatches: dict[str, list[str]] = {}
    try:
        model = _load_saved(Path(checkpoint) / "model.safetensors", config, family)
        if model is None:
            model, mismatches = _load_converted(checkpoint, family)
            if issubclass(family, Sam2Video) and "no_object_pointer" in mismatches["missing tensors"]:
                model, mismatches = _load_converted(checkpoint, family.image_family)
    except ImportError:
        packages = " ".join(family.requirements)
        raise ValueError(f"checkpoint '{checkpoint}' needs more packages: pip install {packages}") from None
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint '{checkpoint}' cannot be read: {reason}; {supported}") from None
    if any(mismatches.values()):
        raise ValueError(f"checkpoint '{checkpoint}' has {meta.describe_mismatches(mismatches)}; {supported}")
    try:
        processing, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint)
    except OSError:
        processing = {}  # the checkpoint has no preprocessor_config.json; use the family's usual normalisation
    return model, processing


def _load_saved(file: Path, config: Any, family: type[Family]) -> Any | None:
    """Load a safetensors file in which tensors have the names of the model's parameters. `save` writes such files.

    transformers can load such a file too. But transformers first compiles the patterns of all its name conversions.
    That takes longer than encoding an image with the small model `sam-tiny`.

    Args:
        file: the safetensors file.
        config: the checkpoint's config.
        family: the checkpoint's family.

    Returns:
        The model, or None if the file does not exist or has other names.
    """
    if not file.is_file() or type(config) is not family.model_class.config_class:
        return None
    with torch.device("meta"):
        model: Any = family.model_class(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    mapped = load_file(file)
    if any(shapes.get(name) != tensor.shape for name, tensor in mapped.items()):
        return None
    # The tensors are copied because the file, which is mapped into memory, may be overwritten later. The copies are
    # also aligned in memory.
    tensors = {name: tensor.to(torch.float32, copy=True) for name, tensor in mapped.items()}
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    create_buffers(model)
    # Other buffers that the file lacks have no data on the meta device. transformers computes them.
    complete = not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model if complete else None


def _load_converted(checkpoint: str, family: type[Family]) -> tuple[Any, dict[str, list[str]]]:
    """Load a checkpoint with transformers' own loader, which converts the names of tensors.

    Returns:
        The model, and the names of wrong tensors by kind of fault, as `meta.describe_mismatches` takes them.
    """
    with _quiet():
        # With `ignore_mismatched_sizes`, transformers reports tensors of another shape instead of raising an exception.
        options: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}
        loaded: Any = family.model_class.from_pretrained(checkpoint, dtype=torch.float32, **options)
    model, report = loaded
    return model, {
        "missing tensors": sorted(report["missing_keys"]),
        "unexpected tensors": sorted(report["unexpected_keys"]),
        "tensors of another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }


def save(family: Family, folder: Path) -> None:
    """Save a model as a checkpoint folder that both `load` and transformers read.

    Args:
        family: the model.
        folder: the folder, which receives the config, the weights (safetensors), `preprocessor_config.json`, and
            further files of the family.
    """
    family.model.save_pretrained(folder)
    family.save_files(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(family.processing(), indent=2) + "\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' warnings about tensors of a video checkpoint that an image model does not use."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
