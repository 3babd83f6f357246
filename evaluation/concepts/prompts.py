"""Choose the concepts to search for in the images of a COCO file, and the true instances of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from sam_endpoint.evaluation.coco import CocoAnnotation, CocoDataset
from sam_endpoint.evaluation.ground_truth import AnnotatedImage
from sam_endpoint.model.concepts import Concept
from sam_endpoint.model.concepts.parsing import parse_concepts
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.masks import RunLengths

SEED = 0
CROWDS = "pairs of an image and a category with a crowd region, left out of cgF1"


@dataclass(frozen=True)
class ConceptPrompt:
    """A concept to search for in an image.

    Attributes:
        category_id: The id of the category that the concept stands for.
        concept: The concept.
        true: The instances to find; empty for a negative.
        example: The mask of the example, which is not to be found again; None for a text.
        exhaustive: Whether `true` holds each instance in the image. If not, the pair has no part in cgF1.
    """

    category_id: object
    concept: Concept
    true: Sequence[RunLengths]
    example: RunLengths | None = None
    exhaustive: bool = True


def read_texts(dataset: CocoDataset) -> dict[object, str]:
    """Return the text of each category, which is its name.

    Categories of the same text, and those whose name is not a valid text, are counted in the problems of the data set
    and left out. Of several categories with the same text, the first is used.
    """
    texts: dict[object, str] = {}
    for category_id, name in dataset.categories.items():
        place = f"category {category_id}"
        try:
            concepts = parse_concepts([name], None, None) or []
        except BadInput as error:
            dataset.problems.add("categories whose name is not a text, left out", f"{place}: got {error.got}")
            continue
        text = concepts[0].text or ""
        if text in texts.values():
            dataset.problems.add("categories with the name of another category, left out", place)
            continue
        texts[category_id] = text
    return texts


def annotated_images(dataset: CocoDataset) -> Iterator[tuple[AnnotatedImage, dict[object, list[CocoAnnotation]]]]:
    """Read the images, each with its annotations by category."""
    start = 0
    for image in dataset:
        by_category: dict[object, list[CocoAnnotation]] = {}
        for annotation in dataset.annotations[start:]:
            by_category.setdefault(annotation.category_id, []).append(annotation)
        start = len(dataset.annotations)
        yield image, by_category


def text_prompts(
    dataset: CocoDataset,
    texts: dict[object, str],
    image: AnnotatedImage,
    annotations: dict[object, list[CocoAnnotation]],
    max_negatives: int | None,
) -> list[ConceptPrompt]:
    """Return the texts to search for: the categories in the image, and categories that are absent.

    If the image has `neg_category_ids` and `not_exhaustive_category_ids`, as in LVIS, only the former are absent for
    certain, and the latter have more instances than annotations.

    Args:
        dataset: The data set.
        texts: The texts of `read_texts`.
        image: The image.
        annotations: The annotations of the image by category.
        max_negatives: The maximum number of absent categories, chosen at random; None for all.
    """
    entry = dataset.images[image.id]
    absent = [category_id for category_id in entry.get("neg_category_ids", texts) if category_id in texts]
    absent = [category_id for category_id in absent if category_id not in annotations]
    if max_negatives is not None and len(absent) > max_negatives:
        seed = (SEED, *image.name.encode())
        chosen = np.random.default_rng(seed).choice(len(absent), max_negatives, replace=False)
        absent = [absent[i] for i in sorted(chosen)]
    prompts = []
    for category_id, text in texts.items():
        own = annotations.get(category_id, [])
        if not own and category_id not in absent:
            continue
        crowd = any(annotation.crowd for annotation in own)
        if crowd:
            dataset.problems.add(CROWDS, f"{image.name}, category {category_id}")
        complete = not crowd and category_id not in entry.get("not_exhaustive_category_ids", ())
        true = [annotation.rle for annotation in own if not annotation.crowd]
        prompts.append(ConceptPrompt(category_id, Concept(text), true, exhaustive=complete))
    return prompts


def example_prompts(
    dataset: CocoDataset,
    texts: dict[object, str],
    image: AnnotatedImage,
    annotations: dict[object, list[CocoAnnotation]],
) -> list[ConceptPrompt]:
    """Return an example for each category in the image: the box of its first annotation. The others are to be found.

    If the category has no other instance, the pair is negative.

    Args: see `text_prompts`.
    """
    prompts = []
    for category_id in texts:
        own = annotations.get(category_id, [])
        instances = [annotation.rle for annotation in own if not annotation.crowd]
        if not instances:
            continue
        if len(instances) < len(own):
            dataset.problems.add(CROWDS, f"{image.name}, category {category_id}")
        x, y, width, height = coco.toBbox(instances[0])
        box = np.array([[x, y, x + width, y + height]], np.float32)
        concept = Concept(boxes=box, labels=np.ones(1, np.int32))
        complete = len(instances) == len(own) and category_id not in dataset.images[image.id].get(
            "not_exhaustive_category_ids", ()
        )
        prompts.append(ConceptPrompt(category_id, concept, instances[1:], instances[0], complete))
    return prompts
