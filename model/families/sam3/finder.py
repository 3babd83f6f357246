"""SAM 3's detector as a finder of concepts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...call import Call
from ...concepts import Concept, Instances, Thresholds
from ...halving import halve_on_out_of_memory
from .detector import Detections, detect, position_embedding
from .examples import embed_examples
from .text import TextEmbedder

if TYPE_CHECKING:
    from ...embedded_image import EmbeddedImage
    from ...segmenter import Segmenter

EXAMPLES_ONLY = "visual"  # the text with which the model is trained for concepts without a text


class Sam3Finder:
    """Finds concepts by text, by exemplar boxes, or by both, in the embedding of an image.

    Args:
        model: a Sam3Model or Sam3LiteTextModel.
        texts: embeds texts.
    """

    takes_text = True
    takes_examples = True
    needs_pixels = False
    nbytes = 0

    def __init__(self, model: Any, texts: TextEmbedder) -> None:
        self.model = model
        self.texts = texts
        self.max_instances: int = model.config.detr_decoder_config.num_queries
        # A concept takes about 300 MB while its image tokens are decoded.
        self.concepts_per_batch = 4 if model.device.type == "cpu" else 16

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise BadInput if a text has too many tokens."""
        self.texts.check(texts)

    def find(
        self,
        segmenter: Segmenter,
        image: EmbeddedImage,
        concepts: Sequence[Concept],
        thresholds: Thresholds,
        call: Call,
    ) -> list[Instances]:
        """Find the instances of concepts. Concepts are decoded in batches, and the image is not encoded again.

        Raises:
            BadInput: a text has too many tokens.
            Overloaded, DeadlineExceeded, ClientDisconnected: as `ConceptFinder.find`.
        """
        self.texts.check([concept.text for concept in concepts if concept.text is not None])
        found: list[Instances] = []
        for piece in call.pieces(len(concepts), self.concepts_per_batch):
            batch = concepts[piece]
            work = partial(self._find_batch, image.embedding.features[-3:], image.size, thresholds.score)
            with call.stage("detect"):
                found += segmenter.run(partial(halve_on_out_of_memory, work, batch), call)
        return found

    def _find_batch(
        self, features: tuple[Tensor, ...], size: tuple[int, int], threshold: float, concepts: Sequence[Concept]
    ) -> list[Instances]:
        """Find the instances of a batch of concepts in the detector's feature maps of an image of `size` (h, w)."""
        features = tuple(maps.to(self.model.device) for maps in features)
        prompts = self._prompts(features[-1], size, concepts)
        return [_instances(detections, size) for detections in detect(self.model, features, prompts, threshold)]

    def _prompts(self, image: Tensor, size: tuple[int, int], concepts: Sequence[Concept]) -> list[Tensor]:
        """Embed the text and the examples of each concept. Returns one tensor (tokens, C) per concept."""
        texts = [EXAMPLES_ONLY if concept.text is None else concept.text for concept in concepts]
        prompts = self.texts.embed(texts)
        for i, concept in enumerate(concepts):
            if len(concept.boxes):
                height, width = size
                corners = torch.from_numpy(concept.boxes).to(image) / image.new_tensor([width, height] * 2)
                boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
                labels = torch.from_numpy(concept.labels).to(image.device, torch.int64)
                positions = position_embedding(self.model, image)
                examples = embed_examples(self.model.geometry_encoder, boxes, labels, image, positions)
                prompts[i] = torch.cat([prompts[i], examples[0]])
        return prompts


def _instances(detections: Detections, size: tuple[int, int]) -> Instances:
    """Convert detections to instances in an image of `size` (h, w).

    transformers interpolates the probabilities of a mask, not its logits, and thresholds them at 0.5. A logit here is
    20 p - 10, as SAM 2 converts masks to logits. It gives the same pixels, and serves as the mask input of a click.
    """
    height, width = size
    boxes = detections.boxes * detections.boxes.new_tensor([width, height] * 2)
    return Instances(detections.masks.mul_(20).sub_(10), boxes, detections.scores)
