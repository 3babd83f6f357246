"""What a model accepts as prompts, and the errors for concepts that it does not accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BadInput
from .values import Concept

if TYPE_CHECKING:
    from ..families.family import Family
    from .finder import ConceptFinder

ADD_DETECTOR = "add --detector IDEA-Research/grounding-dino-tiny to `sam-endpoint package`"
TAKES_TEXT = f"a model that takes text (package --checkpoint facebook/sam3, or {ADD_DETECTOR})"
TAKES_BOTH = "either input_text or input_exemplars, because this model takes both together only if it is a SAM 3"
TAKES_OTHER_IMAGE = "no input_text beside input_exemplar_image, because examples of another image are compared alone"


def capabilities(family: Family, finder: ConceptFinder | None) -> dict[str, bool]:
    """Return which prompts a model accepts.

    Args:
        family: the model.
        finder: the model's finder of concepts, or None.

    Returns:
        Whether the model takes `points`, `boxes`, `text`, `exemplars` and `video`, by name.
    """
    prompts = family.prompt_maps > 0
    return {
        "points": prompts,
        "boxes": prompts,
        "text": finder is not None and finder.takes_text,
        "exemplars": prompts or (finder is not None and finder.takes_examples),
        "video": family.tracks,
    }


def check_concepts(finder: ConceptFinder | None, concepts: Sequence[Concept], other_image: bool = False) -> None:
    """Check that a model accepts concepts.

    Args:
        finder: the model's finder of concepts, or None.
        concepts: the concepts.
        other_image: whether the examples are in another image.

    Raises:
        BadInput: the model does not accept a concept, in which case the message names a packaging that does, or it
            cannot search for a text.
    """
    for concept in concepts:
        if concept.text is None:
            continue
        if finder is None or not finder.takes_text:
            raise BadInput("input_text", TAKES_TEXT, "a text, and this model takes points, boxes and exemplars")
        if len(concept.boxes) and other_image:
            raise BadInput("input_exemplar_image", TAKES_OTHER_IMAGE, "both")
        if len(concept.boxes) and not finder.takes_examples:
            raise BadInput("input_exemplars", TAKES_BOTH, "both, and this model finds texts with a packaged detector")
        finder.check_texts([concept.text])
