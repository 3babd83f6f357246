"""Annotate images by text: read the texts of a job, and find their instances in an image."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sam_endpoint.model.concepts import Concept
from sam_endpoint.model.concepts.parsing import MAX_TEXTS, parse_concepts
from sam_endpoint.model.concepts.predict import predict_concepts
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput, BadParameter
from sam_endpoint.model.images import ImageRef
from sam_endpoint.model.params import Params
from sam_endpoint.model.rows import Row
from sam_endpoint.scoring.batch.labels import LabelledImage, LabelledObject

MANY = f"at most {MAX_TEXTS} texts (run the command once for every {MAX_TEXTS} texts, each with its own --output)"


def read_texts(text: str) -> list[Concept]:
    """Read the texts of the option --text. Each text is a class of the labels.

    Args:
        text: texts separated by commas, or a JSON list of texts, which may contain commas.

    Raises:
        BadParameter: a text is empty, too long or used twice, or there are too many texts.

    Example:
        >>> [concept.text for concept in read_texts("cup, tea  spoon")]
        ['cup', 'tea spoon']
    """
    try:
        parts = json.loads(text) if text.lstrip().startswith("[") else text.split(",")
    except (ValueError, RecursionError):
        raise BadParameter("--text: expected texts separated by commas, or a JSON list, got broken JSON") from None
    if len(parts) > MAX_TEXTS:
        raise BadParameter(f"--text: expected {MANY}, got {len(parts)}")
    try:
        concepts = parse_concepts(parts, None, None)
    except BadInput as error:
        raise BadParameter(f"--text: expected {error.expected}, got {error.got}") from None
    if not concepts:
        raise BadParameter("--text: expected at least one text, got an empty list")
    texts = [concept.text for concept in concepts]
    if len(set(texts)) < len(texts):
        raise BadParameter(f"--text: expected {len(texts)} different texts, got {len(set(texts))}")
    return concepts


def check_texts(engine: Engine, concepts: Sequence[Concept]) -> None:
    """Check that a model can search for texts.

    Raises:
        BadParameter: the model takes no text, in which case the message names a packaging that does; or it cannot
            search for one of the texts.
    """
    for number, concept in enumerate(concepts, 1):
        try:
            engine.concepts.check([concept])
        except BadInput as error:
            place = f"--text, text {number}" if len(concepts) > 1 else "--text"
            raise BadParameter(f"{place}: expected {error.expected}, got {error.got}") from None


def find_concepts(
    engine: Engine, name: str, ref: ImageRef, concepts: Sequence[Concept], params: Params
) -> LabelledImage:
    """Find the instances of concepts in one image.

    Args:
        engine: finds the instances.
        name: name of the image.
        ref: the image.
        concepts: the concepts. The category of an object is the position of its concept.
        params: the thresholds. `mask_encoding` is `rle`.

    Raises:
        BadInput: the image cannot be read.
    """
    row = Row(name, ref, None, None, False, concepts)
    with engine.embedded(ref, engine.concepts.needs_pixels(concepts)) as image:
        predictions = predict_concepts(engine, image, row, params)
    objects = [
        LabelledObject.from_prediction(prediction["concept_index"], prediction["mask_per_prediction"][0])
        for prediction in predictions
    ]
    return LabelledImage(name, image.size, [labelled for labelled in objects if labelled.area])
