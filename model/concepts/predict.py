"""Answer rows with concepts: find the instances and encode their masks."""

from __future__ import annotations

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
    found = engine.concepts.find(image, concepts, params.thresholds, call) if concepts else []
    for index, (concept, instances) in enumerate(zip(concepts, found, strict=True)):
        for logits, score in zip(instances.logits, instances.scores, strict=True):
            segmentation = Segmentation(logits[None], np.array([float(score)]), image.size)
            prediction = render(engine, segmentation, params, call)
            predictions.append(PartialAnswer(**prediction, concept=concept.text, concept_index=index))
    return predictions
