"""The SAM-HQ family (2023): SAM with an additional high-quality mask, which uses early features of the encoder."""

from __future__ import annotations

from torch import Tensor
from transformers import SamHQModel

from .sam import Sam


class SamHq(Sam):
    """Checkpoints `syscv-community/sam-hq-vit-base`, `-large`, `-huge`.

    As by default in transformers, the three masks are in descending order of their scores, and the logits of the
    high-quality mask are added to each mask.
    """

    name = "sam_hq"
    model_class = SamHQModel
    processor = "SamHQProcessor"

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Encode images to the feature map of SAM and a map of early features."""
        outputs = self.model.vision_encoder(pixels)
        # The decoder reads only the first intermediate embedding, which is that of the first layer with global
        # attention.
        return outputs.last_hidden_state, outputs.intermediate_embeddings[0].permute(0, 3, 1, 2)

    @property
    def feature_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape (1, channels, height, width) of both feature maps."""
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
        """Predict the masks of embedded prompts with transformers' decoder. `min_score` is not used."""
        early = features[1].permute(0, 2, 3, 1)
        if early.stride(0) == 0:
            early = early[:1]  # all prompts are on one image, so the decoder compresses its features only once
        logits, scores = self.model.mask_decoder(
            image_embeddings=features[0],
            image_positional_embeddings=self.image_positions().expand_as(features[0]),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
            hq_token_only=False,
            intermediate_embeddings=[early],
        )
        return logits[:, 0], scores[:, 0]
