"""Find the instances of concepts with the finder that suits each concept, and remove duplicates across concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..call import UNTRACKED, Call
from ..errors import BadInput
from .capabilities import capabilities, check_concepts
from .examples import ExampleFinder
from .finder import ConceptFinder
from .overlaps import distinct_masks
from .values import Concept, Instances, Thresholds

if TYPE_CHECKING:
    from ..embedded_image import EmbeddedImage
    from ..segmenter import Segmenter


LOGIT_BYTES = 4  # float32


class ConceptSearch:
    """Finds the instances of concepts with a model.

    The model's own finder searches for the concepts that it takes. Other examples are compared by `ExampleFinder`.

    Args:
        segmenter: the model.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._by_example = ExampleFinder(segmenter.family)

    @property
    def capabilities(self) -> dict[str, bool]:
        """Whether the model takes `points`, `boxes`, `text`, `exemplars` and `video`, by name."""
        return capabilities(self._segmenter.family, self._segmenter.finder)

    def check(self, concepts: Sequence[Concept], other_image: bool = False) -> None:
        """Raise BadInput if the model cannot search for a concept. `other_image`: the examples are in another image."""
        check_concepts(self._segmenter.finder, concepts, other_image)

    def compares_examples(self, concepts: Sequence[Concept], other_image: bool = False) -> bool:
        """Return whether a search segments everything, which costs as much as a row without prompts."""
        return any(self._finder(concept, other_image) is self._by_example for concept in concepts)

    def needs_pixels(self, concepts: Sequence[Concept]) -> bool:
        """Return whether a search reads the pixels of the image."""
        return any(self._finder(concept).needs_pixels for concept in concepts)

    def memory_needed(self, concepts: Sequence[Concept]) -> int:
        """Return the largest number of bytes that the masks of a search need. `call.hold` reserves them."""
        height, width = self._segmenter.family.low_res_size
        return LOGIT_BYTES * height * width * sum(self._finder(concept).max_instances for concept in concepts)

    def count_searches(self, concepts: Sequence[Concept], other_image: bool = False) -> int:
        """Return how many of the concepts a detector searches for. The others are compared with `ExampleFinder`."""
        return sum(self._finder(concept, other_image) is not self._by_example for concept in concepts)

    @torch.inference_mode()
    def find(
        self, image: EmbeddedImage, concepts: Sequence[Concept], thresholds: Thresholds, call: Call = UNTRACKED
    ) -> list[Instances]:
        """Find every instance of concepts in one image.

        Args:
            image: the image, encoded by the model. It needs its pixels if `needs_pixels` says so.
            concepts: the concepts.
            thresholds: the filters.
            call: context of the request.

        Returns:
            The instances of each concept, in the order of the concepts.

        Raises:
            BadInput: the model does not take a concept, or the box of an example lies outside its image.
            Overloaded, DeadlineExceeded, ClientDisconnected: the request must stop (see `Call.check`).
        """
        for concept in concepts:
            self.check([concept], concept.examples_image is not None)
        clipped = [_clip(concept, image) for concept in concepts]
        finders = [self._finder(concept) for concept in clipped]
        by_position: dict[int, Instances] = {}
        for finder in dict.fromkeys(finders):
            positions = [i for i, other in enumerate(finders) if other is finder]
            own = [clipped[i] for i in positions]
            least = replace(thresholds, score=min(_min_score(concept, thresholds) for concept in own))
            instances = finder.find(self._segmenter, image, own, least, call)
            by_position.update(zip(positions, instances, strict=True))
        ordered = [
            _above(by_position[i], concept.min_score if finder is self._by_example else _min_score(concept, thresholds))
            for i, (concept, finder) in enumerate(zip(clipped, finders, strict=True))
        ]
        return ordered if thresholds.nms is None or not ordered else _suppress(ordered, thresholds.nms)

    def _finder(self, concept: Concept, other_image: bool = False) -> ConceptFinder:
        own = self._segmenter.finder
        if own is None or (concept.text is not None and not own.takes_text):
            return self._by_example
        elsewhere = other_image or concept.examples_image is not None
        return self._by_example if len(concept.boxes) and (elsewhere or not own.takes_examples) else own


def _min_score(concept: Concept, thresholds: Thresholds) -> float:
    return thresholds.score if concept.min_score is None else concept.min_score


def _clip(concept: Concept, image: EmbeddedImage) -> Concept:
    """Clip the boxes of examples to their image. Raises BadInput for a box that lies outside."""
    height, width = (concept.examples_image or image).size
    boxes = np.clip(concept.boxes, 0, np.array([width, height] * 2, np.float32))
    if not ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).all():
        raise BadInput("input_exemplars", f"boxes inside the image of {width} x {height} pixels", "a box outside")
    return replace(concept, boxes=boxes)


def _above(instances: Instances, min_score: float | None) -> Instances:
    """Remove the instances below a minimum score; None keeps all."""
    if min_score is None:
        return instances
    count = int((instances.scores >= min_score).sum())
    return Instances(instances.logits[:count], instances.boxes[:count], instances.scores[:count])


def _suppress(by_concept: Sequence[Instances], max_iou: float) -> list[Instances]:
    """Remove each instance whose mask has an IoU above `max_iou` with an instance of a higher score."""
    inside = torch.cat([instances.logits > 0 for instances in by_concept])
    scores = torch.cat([instances.scores.cpu() for instances in by_concept])
    order = [int(i) for i in scores.argsort(descending=True, stable=True)]
    keep = set(distinct_masks(inside, order, max_iou))
    result, first = [], 0
    for instances in by_concept:
        own = [i for i in range(len(instances.scores)) if first + i in keep]
        result.append(Instances(instances.logits[own], instances.boxes[own], instances.scores[own]))
        first += len(instances.scores)
    return result
