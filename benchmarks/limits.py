"""Lower bounds of times: the arithmetic at the rate of a matrix product, plus the bytes at the rate of a copy."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Sam2Model, SamModel

from benchmarks import measure, subjects


def lower_bound(name: str, images: float = 0, prompts: float = 0, moved: float = 0) -> float:
    """Return a lower bound of a case's seconds, at the rates that the machine reaches now.

    Args:
        name: name of the checkpoint.
        images: number of images to encode, with transformers' arithmetic.
        prompts: number of prompts to decode, with transformers' arithmetic.
        moved: number of bytes to read and write.
    """
    encoding, decoding = flops(name)
    arithmetic = images * encoding + prompts * decoding
    return (arithmetic / measure.matrix_rate() if arithmetic else 0) + (moved / measure.copy_rate() if moved else 0)


@cache
def flops(name: str) -> tuple[int, int]:
    """Count the floating point operations of transformers' eager model, without running it.

    Returns:
        The number of operations to encode an image, and to decode a box to three masks.
    """
    config = AutoConfig.from_pretrained(subjects.checkpoint(name))
    model_class: Any = SamModel if config.model_type == "sam" else Sam2Model
    side = config.prompt_encoder_config.image_size
    with torch.device("meta"), torch.no_grad():
        model = model_class._from_config(config, attn_implementation="eager").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as encoding:
            embedding = model.get_image_embeddings(torch.empty(1, 3, side, side))
        with FlopCounterMode(display=False) as decoding:
            model(image_embeddings=embedding, input_boxes=torch.empty(1, 1, 4))
    return encoding.get_total_flops(), decoding.get_total_flops()
