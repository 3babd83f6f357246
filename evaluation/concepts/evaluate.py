"""Search for concepts in the images of a COCO file, and compare the instances with the annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.evaluation.coco import CocoAnnotation, CocoDataset
from sam_endpoint.evaluation.concepts import report
from sam_endpoint.evaluation.concepts.metrics import PairResult
from sam_endpoint.evaluation.concepts.prompts import (
    ConceptPrompt,
    annotated_images,
    example_prompts,
    read_texts,
    text_prompts,
)
from sam_endpoint.evaluation.detections import DetectedMask
from sam_endpoint.evaluation.ground_truth import AnnotatedImage
from sam_endpoint.evaluation.options import EXAMPLE, TEXT, EvaluationOptions
from sam_endpoint.model import masks
from sam_endpoint.model.concepts import Concept, Thresholds
from sam_endpoint.model.concepts.parsing import MAX_TEXTS
from sam_endpoint.model.embedded_image import EmbeddedImage
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadData, BadInput, BadParameter, Overloaded
from sam_endpoint.model.images import OpenedImage
from sam_endpoint.model.segmentation import Segmentation
from sam_endpoint.scoring.overlay import Shown, overlay
from sam_endpoint.scoring.runtime import OpenedModel

MIN_AP_SCORE = 0.01  # instances with a lower score have no part in AP
MAX_DRAWN = 8  # images that are drawn
SAME = 0.5  # minimum IoU of the example and the instance that is the example


@dataclass
class ConceptResults:
    """The results of one model.

    Attributes:
        name: The name of the model in reports.
        engine: The model.
        thresholds: The filters of instances. Those below `min_score` only count for AP.
        min_score: The minimum score of an instance.
        compares: Whether scores are similarities to an example.
        pairs: The result of each pair that has a part in cgF1.
        detected_masks: The masks of all instances, for AP.
        images: Drawings of the first images with their instances.
    """

    name: str
    engine: Engine
    thresholds: Thresholds
    min_score: float
    compares: bool
    pairs: list[PairResult] = field(default_factory=list)
    detected_masks: list[DetectedMask] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, model: OpenedModel, kind: str, min_score: float | None) -> ConceptResults:
        """Start the results of a model.

        Args:
            name: The name of the model in reports.
            model: The model.
            kind: TEXT or EXAMPLE.
            min_score: The minimum score of an instance; None for the default of the model.

        Raises:
            BadParameter: The model takes no concepts of this kind. The message names a packaging that does.
        """
        concept = Concept("object") if kind == TEXT else Concept(boxes=np.ones((1, 4)), labels=np.ones(1, np.int32))
        search = model.engine.concepts
        if not search.capabilities["text" if kind == TEXT else "exemplars"]:
            try:
                search.check([concept])
            except BadInput as error:
                raise BadParameter(f"--concepts {kind}, model {name}: expected {error.expected}") from None
            raise BadParameter(f"--concepts {kind}, model {name}: expected a model that finds objects by example")
        thresholds = model.defaults.read({}).thresholds
        if min_score is not None:
            thresholds = replace(thresholds, score=min_score, similarity=min_score)
        # The similarity also decides which of two overlapping masks is kept, so a lower one would change the instances.
        compares = search.compares_examples([concept])
        lower = thresholds if compares else replace(thresholds, score=min(MIN_AP_SCORE, thresholds.score))
        own = thresholds.similarity if compares else thresholds.score
        return cls(name, model.engine, lower, own, compares)

    def measure(self, image: AnnotatedImage, prompts: Sequence[ConceptPrompt]) -> list[list[DetectedMask]]:
        """Encode an image, and find the instances of each prompt, the highest score first.

        Raises:
            Overloaded: The image needs more memory than available.
        """
        if not prompts:
            return []
        segmenter = self.engine.segmenter
        (embedding,) = segmenter.embed([image.pixels])
        embedded = EmbeddedImage(embedding, "", OpenedImage("", lambda call: image.pixels, lambda: 0))
        # With a limit on the overlap across concepts, the answer to a text would depend on the other texts.
        size = MAX_TEXTS if self.thresholds.nms is None else 1
        detected: list[list[DetectedMask]] = []
        for start in range(0, len(prompts), size):
            some = prompts[start : start + size]
            found = self.engine.concepts.find(embedded, [prompt.concept for prompt in some], self.thresholds)
            for prompt, instances in zip(some, found, strict=True):
                scores = instances.scores.float().cpu().numpy()
                cropped = segmenter.cropped_masks(Segmentation(instances.logits, scores, embedded.size))
                detected.append(
                    [
                        DetectedMask(image.id, prompt.category_id, float(score), masks.to_rle(mask))
                        for score, mask in zip(scores, cropped, strict=True)
                    ]
                )
        return [_without_example(prompt, instances) for prompt, instances in zip(prompts, detected, strict=True)]

    def add(
        self, image: AnnotatedImage, prompts: Sequence[ConceptPrompt], detected: Sequence[list[DetectedMask]]
    ) -> None:
        """Add the instances of an image, from `measure`."""
        shown = []
        for prompt, instances in zip(prompts, detected, strict=True):
            self.detected_masks += instances
            if prompt.exhaustive:
                scores = np.array([instance.score for instance in instances], np.float64)
                ious = mask_ious([instance.rle for instance in instances], prompt.true)
                self.pairs.append(PairResult(image.id, prompt.category_id, ious, scores))
            shown += [instance for instance in instances if instance.score >= self.min_score]
        if len(self.images) < MAX_DRAWN:
            drawn = [Shown(masks.from_rle(instance.rle), instance.score) for instance in shown]
            self.images.append(overlay(image.pixels, drawn))


def mask_ious(predicted: Sequence[masks.RunLengths], true: Sequence[masks.RunLengths]) -> np.ndarray:
    """Return the IoU of each predicted and each true mask, `(P, T)`."""
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    return np.asarray(coco.iou(list(predicted), list(true), [0] * len(true)), np.float64)


def _without_example(prompt: ConceptPrompt, instances: list[DetectedMask]) -> list[DetectedMask]:
    """Remove the instance that is the example."""
    if prompt.example is None or not instances:
        return instances
    ious = mask_ious([instance.rle for instance in instances], [prompt.example])[:, 0]
    best = int(ious.argmax())
    return instances if ious[best] < SAME else instances[:best] + instances[best + 1 :]


def evaluate_concepts(
    models: Mapping[str, OpenedModel], dataset: CocoDataset, options: EvaluationOptions
) -> tuple[list[ConceptResults], list[object], list[CocoAnnotation]]:
    """Search for the categories of a data set in its images.

    All models get the same pairs. A category whose name one model cannot search for is left out for all models.

    Args:
        models: The models by name.
        dataset: The images and their annotations.
        options: The options of the command.

    Returns:
        The results of each model, the ids of the evaluated images, and the annotations that are to be found.

    Raises:
        BadParameter: A model takes no concepts of this kind.
    """
    all_results = [
        ConceptResults.of(name, model, options.concepts, options.min_score) for name, model in models.items()
    ]
    texts = read_texts(dataset)
    if options.concepts == TEXT:
        texts = {category_id: text for category_id, text in texts.items() if _takes(all_results, dataset, text)}
    image_ids: list[object] = []
    to_find: list[CocoAnnotation] = []
    for image, by_category in annotated_images(dataset):
        if options.concepts == EXAMPLE:
            prompts = example_prompts(dataset, texts, image, by_category)
        else:
            prompts = text_prompts(dataset, texts, image, by_category, options.negatives)
        try:
            measured = [results.measure(image, prompts) for results in all_results]
        except Overloaded:
            dataset.problems.add("images for which memory was short, left out", image.name)
            continue
        for results, detected in zip(all_results, measured, strict=True):
            results.add(image, prompts, detected)
        image_ids.append(image.id)
        examples = [id(prompt.example) for prompt in prompts if prompt.example is not None]
        to_find += [
            annotation
            for prompt in prompts
            for annotation in by_category.get(prompt.category_id, [])
            if id(annotation.rle) not in examples
        ]
    return all_results, image_ids, to_find


def _takes(all_results: Sequence[ConceptResults], dataset: CocoDataset, text: str) -> bool:
    """Return whether all models can search for a text. If not, count the category in the problems."""
    for results in all_results:
        try:
            results.engine.concepts.check([Concept(text)])
        except BadInput as error:
            problem = f"categories whose name {results.name} cannot search for, left out"
            dataset.problems.add(problem, f"'{text}': got {error.got}")
            return False
    return True


def run(options: EvaluationOptions, models: Mapping[str, OpenedModel]) -> int:
    """Evaluate the concepts of models, then print, write and log the results.

    Args:
        options: The options of the command.
        models: The models by name.

    Returns:
        The exit code.

    Raises:
        BadData: The data set cannot be read, or has no pair to evaluate.
        BadParameter: A model takes no concepts of this kind.
        OSError: A result cannot be written.
    """
    dataset = CocoDataset(Path(options.data), options.images, options.count)
    all_results, image_ids, to_find = evaluate_concepts(models, dataset, options)
    if not all_results[0].pairs:
        problems = dataset.problems.format_lines()
        raise BadData(f"'{options.data}' has no image and category that can be evaluated\n{problems}")
    report.write_results(options, dataset, all_results, image_ids, to_find)
    return 0
