"""Evaluate one model, or compare two models, on synthetic scenes, on a COCO file or on videos."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sam_endpoint.evaluation import output, runs
from sam_endpoint.evaluation.clips import evaluate as clips
from sam_endpoint.evaluation.clips.davis_folder import is_davis_folder
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.concepts import evaluate as concepts
from sam_endpoint.evaluation.detections import DetectedBox, clip_to_image, read_detections
from sam_endpoint.evaluation.ground_truth import GroundTruth
from sam_endpoint.evaluation.options import CLIPS, DEFAULT_SCENES, SCENES, EvaluationOptions
from sam_endpoint.evaluation.results import ModelResults
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.errors import Overloaded
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.runtime import OpenedModel, open_model


def evaluate(
    models: Mapping[str, Segmenter],
    ground_truth: GroundTruth,
    detections: Mapping[object, list[DetectedBox]] | None = None,
) -> tuple[list[ModelResults], list[object]]:
    """Evaluate models on all objects of a data set, and optionally on the boxes of a detector.

    All models are evaluated on the same images, and each image is read once. If one model has not enough memory for an
    image, the image is left out for all models.

    Args:
        models: The segmenters by the name of the model.
        ground_truth: The images and their true masks.
        detections: The boxes of a detector by image id; only for a COCO file.

    Returns:
        The results of each model, and the ids of the evaluated images.
    """
    all_results = [ModelResults(name, segmenter) for name, segmenter in models.items()]
    image_ids: list[object] = []
    for image in ground_truth:
        boxes = (detections or {}).get(image.id, [])
        if boxes and isinstance(ground_truth, CocoDataset):
            boxes = clip_to_image(boxes, (image.pixels.shape[0], image.pixels.shape[1]), ground_truth)
        if image.objects or boxes:
            try:
                measured = [results.measure(image, boxes) for results in all_results]
            except Overloaded:
                ground_truth.problems.add("images for which memory was short, left out", image.name)
                continue
            for results, (object_results, detected_masks) in zip(all_results, measured, strict=True):
                results.add(image, object_results, detected_masks)
        image_ids.append(image.id)
    return all_results, image_ids


def run(options: EvaluationOptions) -> int:
    """Run the command `evaluate`: evaluate the models, then print, write and log the results.

    Args:
        options: The options of the command.

    Returns:
        The exit code: 0, or 1 if the data set has no usable object.

    Raises:
        BadData: The data set or the boxes cannot be read.
        BadModel: A model cannot be opened.
        MlflowException: The tracking server cannot be reached.
        OSError: A result cannot be written.
    """
    runs.use_default_tracking()  # before a model is opened, because its URI may refer to a registry
    if options.data == CLIPS or is_davis_folder(Path(options.data)):
        return clips.run(options, _segmenters(_open_models(options)))
    if options.concepts:
        return concepts.run(options, _open_models(options))
    ground_truth = _open_ground_truth(options)
    detections = None
    if options.boxes and isinstance(ground_truth, CocoDataset):
        detections = read_detections(options.boxes, ground_truth)
    all_results, image_ids = evaluate(_segmenters(_open_models(options)), ground_truth, detections)
    if not all_results[0].rows:
        problems = ground_truth.problems.format_lines()
        print(f"error: {options.data} has no object that can be evaluated\n{problems}", file=sys.stderr)
        return 1
    output.write_results(options, all_results, ground_truth, image_ids)
    return 0


def _segmenters(models: Mapping[str, OpenedModel]) -> dict[str, Segmenter]:
    return {name: model.engine.segmenter for name, model in models.items()}


def _open_models(options: EvaluationOptions) -> dict[str, OpenedModel]:
    """Open the models by their display names, and check the connection to the tracking server if runs are logged."""
    names = display_names(options.models)
    models = {
        name: open_model(model, options.device or None) for name, model in zip(names, options.models, strict=True)
    }
    if options.log:
        runs.check_tracking()  # before the evaluation, so that an unreachable server costs no time
    return models


def open_segmenter(model: str, device: str = "") -> Segmenter:
    """Open a model for an evaluation.

    Args:
        model: An MLflow model, a Hugging Face id or a checkpoint folder.
        device: A torch device; empty for the model's own setting.

    Raises:
        BadModel: The model cannot be opened.
    """
    return open_model(model, device or None).engine.segmenter


def display_names(models: Sequence[str]) -> list[str]:
    """Return a short and unique name for each model.

    A folder gets the last part of its path, and other models get their full name. If these names are not unique, every
    model gets its full name. A model that occurs twice gets a number.

    Example:
        >>> display_names(["models:/sam/1", "models:/sam/1"])
        ['models:/sam/1 (1)', 'models:/sam/1 (2)']
    """
    short = [Path(model).resolve().name if Path(model).exists() else model for model in models]
    if len(set(short)) == len(models):
        return short
    if len(set(models)) == len(models):
        return list(models)
    return [f"{model} ({number})" for number, model in enumerate(models, 1)]


def _open_ground_truth(options: EvaluationOptions) -> GroundTruth:
    if options.data == SCENES:
        return SceneDataset(options.count or DEFAULT_SCENES)
    return CocoDataset(Path(options.data), options.images, options.count)
