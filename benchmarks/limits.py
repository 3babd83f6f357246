"""What a case takes at least: its arithmetic at the rate of a plain large matrix product, and its bytes at a copy's."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Sam2Model, SamModel

from benchmarks import measure, subjects


def least(name: str, images: float = 0, prompts: float = 0, moved: float = 0) -> float:
    """Seconds to encode `images` and decode `prompts`, with transformers' arithmetic, at the rate that matrix products
    have now, and to read and write `moved` bytes at that of a copy."""
    encoding, decoding = flops(name)
    arithmetic = images * encoding + prompts * decoding
    return (arithmetic / measure.matrix_rate() if arithmetic else 0) + (moved / measure.copy_rate() if moved else 0)


@cache
def flops(name: str) -> tuple[int, int]:
    """Floating point operations of transformers' eager model of a checkpoint: to encode an image, to decode a box to
    three masks. Nothing is computed."""
    config = AutoConfig.from_pretrained(subjects.checkpoint(name))
    kind: Any = SamModel if config.model_type == "sam" else Sam2Model
    side = config.prompt_encoder_config.image_size
    with torch.device("meta"), torch.no_grad():
        model = kind._from_config(config, attn_implementation="eager").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as encoding:
            embedding = model.get_image_embeddings(torch.empty(1, 3, side, side))
        with FlopCounterMode(display=False) as decoding:
            model(image_embeddings=embedding, input_boxes=torch.empty(1, 1, 4))
    return encoding.get_total_flops(), decoding.get_total_flops()
