"""One file a model family, behind one protocol; `FAMILIES` names the families there are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig
from transformers.image_processing_base import ImageProcessingMixin

from model.families.family import Family
from model.families.sam import Sam
from model.families.sam2 import Sam2

FAMILIES: dict[str, type[Family]] = {
    "sam": Sam,
    "sam2": Sam2,
    "sam2_video": Sam2,  # what the published sam2 and sam2.1 checkpoints call themselves
}


def load(checkpoint: str, device: str | torch.device = "cpu") -> Family:
    """The family of a checkpoint, a Hugging Face id or a folder, its weights in float32 on `device`.

    Raises ValueError when there is no such checkpoint, its `model_type` is of no family here, or tensors are
    missing from it.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"checkpoint '{checkpoint}': no transformers model found there: {reason}") from None
    if config.model_type not in FAMILIES:
        supported = ", ".join(FAMILIES)
        raise ValueError(f"checkpoint '{checkpoint}' is a '{config.model_type}'; supported are {supported}")
    try:
        processing, _ = ImageProcessingMixin.get_image_processor_dict(checkpoint)
    except OSError:
        processing = {}  # a bare model: the usual normalisation
    family = FAMILIES[config.model_type]
    with _quiet():
        loaded: Any = family.model_class.from_pretrained(checkpoint, output_loading_info=True, dtype=torch.float32)
    model, report = loaded
    wrong = sorted({*report["missing_keys"], *(str(key[0]) for key in report["mismatched_keys"])})
    if wrong:
        listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ValueError(f"checkpoint '{checkpoint}' has tensors missing or of another shape: {listed}")
    model.requires_grad_(False)
    return family(model.eval().to(device), processing)


def save(family: Family, folder: Path) -> None:
    """Writes a folder that `load` and transformers read: the config, the weights as safetensors, preprocessing."""
    family.model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(family.processing(), indent=2) + "\n")


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
