"""Evaluation of models on drawn scenes or on a COCO file, one model or two side by side."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sam_endpoint.evaluation import output, runs
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.detections import DetectedBox, clip_to_image, read_detections
from sam_endpoint.evaluation.ground_truth import GroundTruth
from sam_endpoint.evaluation.options import DEFAULT_SCENES, SCENES, EvaluationOptions
from sam_endpoint.evaluation.results import ModelResults
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.errors import Overloaded
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.runtime import open_model


def evaluate(
    models: Mapping[str, Segmenter],
    ground_truth: GroundTruth,
    detections: Mapping[object, list[DetectedBox]] | None = None,
) -> tuple[list[ModelResults], list[object]]:
    """Evaluate models on all objects of a data set, and on a detector's boxes.

    Each image is read once. All models are evaluated on the same images: one that is too large for the memory of one
    model is left out for all.

    Args:
        models: Segmenters by the model's name.
        detections: Boxes by image id, of a COCO data set.

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
    """Evaluate the models, and print, write and log the results.

    Returns:
        0, or 1 if the data set has no usable object.

    Raises:
        BadData: The data set or the boxes cannot be read.
        BadModel: A model cannot be opened.
        MlflowException: The tracking server cannot be reached.
        OSError: A result cannot be written.
    """
    runs.use_default_tracking()  # before a model is opened: its URI may name a registry
    ground_truth = _open_ground_truth(options)
    detections = None
    if options.boxes and isinstance(ground_truth, CocoDataset):
        detections = read_detections(options.boxes, ground_truth)
    names = display_names(options.models)
    models = {name: open_segmenter(model, options.device) for name, model in zip(names, options.models, strict=True)}
    if options.log:
        runs.check_tracking()  # an unreachable server is reported before the work, not after
    all_results, image_ids = evaluate(models, ground_truth, detections)
    if not all_results[0].rows:
        problems = ground_truth.problems.format_lines()
        print(f"error: nothing in {options.data} could be judged\n{problems}", file=sys.stderr)
        return 1
    output.write_results(options, all_results, ground_truth, image_ids)
    return 0


def open_segmenter(model: str, device: str = "") -> Segmenter:
    """Open an MLflow model, a Hugging Face id or a checkpoint folder. Raises BadModel."""
    return open_model(model, device or None).engine.segmenter


def display_names(models: Sequence[str]) -> list[str]:
    """Return short names for models: the last part of a folder's path if that is unique, else the whole path."""
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
