"""SAM-HQ (2023): SAM with one more mask token, whose mask sharpens the others with early features of the encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import SamHQModel

from model.families.sam import Sam


class SamHq(Sam):
    """`syscv-community/sam-hq-vit-base`, `-large`, `-huge`.

    Its three masks come best first, the high-quality one added to each, as transformers does by default.
    """

    name = "sam_hq"
    model_class = SamHQModel
    processor = "SamHQProcessor"

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        found = self.model.vision_encoder(pixels)
        # The decoder looks at the first global layer's tokens only.
        return found.last_hidden_state, found.intermediate_embeddings[0].permute(0, 3, 1, 2)

    def more(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        early = features[1].permute(0, 2, 3, 1)
        if early.stride(0) == 0:
            early = early[:1]  # the prompts of one image: the decoder compresses it once for all
        return {"hq_token_only": False, "intermediate_embeddings": [early]}
