"""SAM-HQ (2023): SAM with one more mask token, whose mask refines the others with early features of the encoder."""

from __future__ import annotations

from torch import Tensor
from transformers import SamHQModel

from .sam import Sam


class SamHq(Sam):
    """`syscv-community/sam-hq-vit-base`, `-large`, `-huge`.

    The three masks are in descending order of their scores, and the high-quality mask is added to each, which is
    transformers' default.
    """

    name = "sam_hq"
    model_class = SamHQModel
    processor = "SamHQProcessor"

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model.vision_encoder(pixels)
        # Of the intermediate embeddings, the decoder reads the tokens of the first global layer only.
        return outputs.last_hidden_state, outputs.intermediate_embeddings[0].permute(0, 3, 1, 2)

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        _, _, height, width = self.features_shape
        return self.features_shape, (1, int(self.model.config.vision_config.hidden_size), height, width)

    def decode_masks(
        self,
        features: tuple[Tensor, ...],
        sparse: Tensor | None,
        dense: Tensor,
        multimask_output: bool,
        min_score: float,
    ) -> tuple[Tensor, Tensor]:
        early = features[1].permute(0, 2, 3, 1)
        if early.stride(0) == 0:
            early = early[:1]  # all prompts are on one image: the decoder compresses its features once
        logits, scores = self.model.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=self.model.get_image_wide_positional_embeddings().expand_as(features[0]),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            hq_token_only=False,
            intermediate_embeddings=[early],
        )
        return logits[:, 0], scores[:, 0]
