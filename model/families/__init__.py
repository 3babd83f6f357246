"""One file a model family, behind one protocol; `FAMILIES` names the families there are."""

from __future__ import annotations

import hashlib
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

from model.families import meta
from model.families.edgetam import EdgeTam
from model.families.family import Family
from model.families.sam import Sam
from model.families.sam2 import Sam2
from model.families.sam3_tracker import Sam3Tracker
from model.families.sam_hq import SamHq

FAMILIES: dict[str, type[Family]] = {
    "sam": Sam,
    "sam2": Sam2,
    "sam2_video": Sam2,  # what the published sam2 and sam2.1 checkpoints call themselves
    "sam_hq": SamHq,
    "edgetam": EdgeTam,
    "edgetam_video": EdgeTam,
    "sam3_tracker": Sam3Tracker,
    "sam3_video": Sam3Tracker,
}


def load(checkpoint: str, device: str | torch.device = "cpu") -> Family:
    """The family of a checkpoint, a Hugging Face id, a folder or one of Meta's files, its weights in float32 on
    `device`.

    Raises ValueError when there is no such checkpoint, it is of no family here, tensors are missing from it or left
    over, it holds anything but tensors, or the packages its family needs are missing.
    """
    if Path(checkpoint).suffix in meta.SUFFIXES and not Path(checkpoint).is_dir():
        model: Any = meta.load(Path(checkpoint))
        processing: dict[str, Any] = {}
    else:
        model, processing = _from_pretrained(checkpoint)
    model.requires_grad_(False)
    return of(model.eval().to(device), processing)


def of(model: Any, processing: dict[str, Any] | None = None) -> Family:
    """A transformers model, and what its `preprocessor_config.json` says, as its family."""
    family = next(family for family in FAMILIES.values() if family.model_class is type(model))
    return family(model, processing or {})


def _from_pretrained(checkpoint: str) -> tuple[Any, dict[str, Any]]:
    """The model of a Hugging Face id or folder, and its `preprocessor_config.json`."""
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint '{checkpoint}': no transformers model found there: {reason}") from None
    supported = f"supported are {', '.join(FAMILIES)}, and Meta's files of {meta.SUPPORTED}"
    if config.model_type not in FAMILIES:
        raise ValueError(f"checkpoint '{checkpoint}' is a '{config.model_type}'; {supported}")
    family = FAMILIES[config.model_type]
    wrong: dict[str, list[str]] = {}
    try:
        model = _as_saved(Path(checkpoint) / "model.safetensors", config, family)
        if model is None:
            model, wrong = _converted(checkpoint, family)
    except ImportError:
        wanted = " ".join(family.requirements)
        raise ValueError(f"checkpoint '{checkpoint}' needs more packages: pip install {wanted}") from None
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint '{checkpoint}' cannot be read: {reason}; {supported}") from None
    if any(wrong.values()):
        raise ValueError(f"checkpoint '{checkpoint}' has tensors {meta.listed(wrong)}; {supported}")
    try:
        processing, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint)
    except OSError:
        processing = {}  # a bare model: the usual normalisation
    return model, processing


def _as_saved(file: Path, config: Any, family: type[Family]) -> Any | None:
    """The model of a file whose tensors are all named as the model's are, as `save` writes it; None for any other.

    transformers loads it as well, but compiles the patterns of all its conversions of names first, which takes longer
    than an image of the embedded model does.
    """
    if not file.is_file() or type(config) is not family.model_class.config_class:
        return None
    with torch.device("meta"):
        model: Any = family.model_class(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    mapped = load_file(file)
    if any(shapes.get(name) != tensor.shape for name, tensor in mapped.items()):
        return None
    # Copies, for the file itself, which is mapped into memory, may be written over; and aligned as torch likes them.
    tensors = {name: tensor.to(torch.float32, copy=True) for name, tensor in mapped.items()}
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    whole = not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    return model if whole else None


def _converted(checkpoint: str, family: type[Family]) -> tuple[Any, dict[str, list[str]]]:
    """The model of any checkpoint that transformers knows how to read, and the tensors that are wrong with it."""
    with _quiet():
        # Tensors of another shape are then in the report, beside the others that are wrong.
        how: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}
        loaded: Any = family.model_class.from_pretrained(checkpoint, dtype=torch.float32, **how)
    model, report = loaded
    return model, {
        "missing": sorted(report["missing_keys"]),
        "left over": sorted(report["unexpected_keys"]),
        "of another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }


def save(family: Family, folder: Path) -> None:
    """Writes a folder that `load` and transformers read: the config, the weights as safetensors, preprocessing."""
    family.model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(family.processing(), indent=2) + "\n")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of weights that `save` has written."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            found[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers from warning of a video checkpoint's tensors that an image model has no use for."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
