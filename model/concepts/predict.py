"""Answer rows with concepts: find the instances and encode their masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..answers import PartialAnswer, render
from ..call import UNTRACKED, Call
from ..embedded_image import EmbeddedImage
from ..engine import Engine
from ..errors import BadInput
from ..params import Params
from ..rows import Row
from ..segmentation import Segmentation
from .values import Concept, Thresholds


def predict_concepts(
    engine: Engine, image: EmbeddedImage, row: Row, params: Params, call: Call = UNTRACKED
) -> list[PartialAnswer]:
    """Find the instances of the concepts of a row, and encode their masks.

    Args:
        engine: finds the instances.
        image: the image.
        row: a row with concepts.
        params: the parameters of the request.
        call: deadline, cancellation and memory budget of the request.

    Returns:
        One dictionary per instance, by concept and by falling score: `mask_per_prediction`, a list with one mask,
        `concept`, the text or None, and `concept_index`.

    Raises:
        BadInput: the model does not take a concept, or the image with the examples cannot be used.
        BadRequest, Overloaded, DeadlineExceeded, ClientDisconnected: see `Scorer.predict`.
    """
    concepts = list(row.concepts or ())
    if row.examples_image is not None:
        try:
            examples_image = engine.embed(row.examples_image, call)
        except BadInput as error:
            raise error.renamed({"image": "input_exemplar_image", "image_id": "input_exemplar_image"}) from None
        concepts = [replace(concept, examples_image=examples_image) for concept in concepts]
    predictions = []
    for index, segmentation in find_instances(engine, image, concepts, params.thresholds, call):
        prediction = render(engine, segmentation, params, call)
        predictions.append(PartialAnswer(**prediction, concept=concepts[index].text, concept_index=index))
    return predictions


def find_instances(
    engine: Engine, image: EmbeddedImage, concepts: Sequence[Concept], thresholds: Thresholds, call: Call = UNTRACKED
) -> Iterator[tuple[int, Segmentation]]:
    """Find the instances of concepts, and hold memory for their masks until the iterator ends.

    Args:
        engine: finds the instances.
        image: the image. It needs its pixels if `engine.concepts.needs_pixels` says so.
        concepts: the concepts.
        thresholds: the filters.
        call: deadline, cancellation and memory budget of the request.

    Yields:
        The index of the concept and the mask of each instance, by concept and by falling score. The score of the mask
        is the score of the instance.

    Raises:
        BadInput: as `ConceptSearch.find`.
        BadRequest: the masks could need more memory than all requests together may hold.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `ConceptSearch.find` and `Call.hold`.
    """
    with call.hold(engine.concepts.memory_needed(concepts)):
        by_concept = engine.concepts.find(image, concepts, thresholds, call) if concepts else []
        for index, instances in enumerate(by_concept):
            for logits, score in zip(instances.logits, instances.scores, strict=True):
                yield index, Segmentation(logits[None], np.array([float(score)]), image.size)
