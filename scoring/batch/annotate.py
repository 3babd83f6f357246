"""Annotate a folder of images: find objects, segment them, and write their masks as label files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sam_endpoint.model.concepts import Concept
from sam_endpoint.model.errors import BadData, BadInput, OutputConflict
from sam_endpoint.model.images import ImageRef, OpenedImage
from sam_endpoint.model.images.reader import UPRIGHT
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch import detectors, label_names, labels, sources
from sam_endpoint.scoring.batch.boxes import Detection, ImageBoxes, MatchedBoxes
from sam_endpoint.scoring.batch.boxes.yolo import read_classes
from sam_endpoint.scoring.batch.concepts import find_concepts
from sam_endpoint.scoring.batch.detectors import Detector
from sam_endpoint.scoring.batch.files import check_name
from sam_endpoint.scoring.batch.label_folder import write
from sam_endpoint.scoring.batch.label_names import CLASSES, label_file
from sam_endpoint.scoring.batch.labels import LabelledImage, LabelledObject
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.batch.progress import tracked
from sam_endpoint.scoring.runtime import OpenedModel, open_model

# Finds the boxes in an image, given its name and its opened file. If it returns None, automatic mask generation runs.
BoxFinder = Callable[[str, OpenedImage], ImageBoxes | None]
EVERYTHING = {0: "object"}  # the category of automatic mask generation
# For each model name of Ultralytics, the original checkpoint on Hugging Face.
ULTRALYTICS_SIZES = {"t": "tiny", "s": "small", "b": "base-plus", "l": "large"}
ULTRALYTICS = {
    "sam_b.pt": "facebook/sam-vit-base",
    "sam_l.pt": "facebook/sam-vit-large",
    "sam_h.pt": "facebook/sam-vit-huge",
    **{f"sam2_{letter}.pt": f"facebook/sam2-hiera-{size}" for letter, size in ULTRALYTICS_SIZES.items()},
    **{f"sam2.1_{letter}.pt": f"facebook/sam2.1-hiera-{size}" for letter, size in ULTRALYTICS_SIZES.items()},
}


def auto_annotate(
    data: str | Path,
    det_model: str | None = None,
    sam_model: str = "build/model",
    device: str = "",
    conf: float = 0.25,
    iou: float = 0.45,
    imgsz: int = 640,
    max_det: int = 300,
    classes: Sequence[int | str] | None = None,
    output_dir: str | Path | None = None,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Write a YOLO segmentation file for each image in a folder.

    This function replaces `ultralytics.data.annotator.auto_annotate`. It takes the same arguments; `params` is new.

    A `classes.txt` in the output folder has the names of the classes. Images are rotated according to their EXIF
    orientation. Images that already have a label file are skipped. Problems with single images are printed to stderr.

    Args:
        data: folder of images.
        det_model: the detector whose boxes are segmented (see `detectors.load`); None segments all objects in the
            image, as class 0.
        sam_model: an MLflow model, a checkpoint, or an Ultralytics model name such as `sam2.1_b.pt`.
        device: torch device; empty for the default of the detector and of the model.
        conf: minimum score of a box.
        iou: IoU threshold of the non-maximum suppression.
        imgsz: ignored, because each detector has its own input size.
        max_det: maximum number of boxes per image.
        classes: numbers or names of the accepted classes; None for all.
        output_dir: folder for the label files; by default the folder `labels` beside `data`.
        params: params of automatic mask generation, such as `pred_iou_thresh`. They override the model's defaults.

    Raises:
        BadData: the folder has no images, or the detector cannot be loaded.
        BadModel: the SAM model cannot be opened.
        OutputConflict: the output folder has a `classes.txt` with other classes.
        BadParameter: a param has an unknown name or a value out of range.

    Example:
        >>> auto_annotate("photos", det_model="PekingU/rtdetr_r18vd")  # doctest: +SKIP
    """
    box_filter = detectors.BoxFilter(conf, iou, max_det, None if classes is None else tuple(classes))
    folder = Path(output_dir) if output_dir is not None else Path(data).absolute().parent / "labels"
    images = list_images(Path(data), without=folder)
    find: BoxFinder = segment_everything
    names = EVERYTHING
    if det_model:
        detector = detectors.load(det_model, box_filter, device)
        find, names = finder_from_detector(detector), detector.names
    write_classes(folder, names)
    pending = {name: path for name, path in images.items() if not label_file(folder, name, ".txt").exists()}
    for name, result in annotate_images(open_sam(sam_model, device), pending, find, params):
        if isinstance(result, LabelledImage):
            write(label_file(folder, name, ".txt"), labels.to_yolo(result, names).encode())
            for reason in result.skipped:
                tqdm.write(f"skipped      {name} {reason}", file=sys.stderr)
        else:
            tqdm.write(f"failed       {name}: {result}", file=sys.stderr)


def write_classes(folder: Path, names: Mapping[int, str]) -> None:
    """Write a `classes.txt` with the names of the YOLO classes.

    Args:
        folder: folder of the label files.
        names: names of the categories by number.

    Raises:
        OutputConflict: the folder has a `classes.txt` with other classes. Its label files use other class numbers.
        BadData: a name contains a line break.
    """
    text = labels.format_classes(names)
    file = folder / f"{CLASSES}.txt"
    if file.exists() and list(read_classes(file).values()) != [line.strip() for line in text.split("\n")[:-1]]:
        raise OutputConflict(f"'{file}' lists other classes; choose another output folder")
    write(file, text.encode())


def read_params(model: OpenedModel, values: Mapping[str, Any] | None = None) -> Params:
    """Return the params with which a model annotates images. Args and errors are those of `annotate_images`."""
    return replace(
        model.defaults.read(values or {}), mask_encoding="rle", on_error="raise", response_format="model_card"
    )


def annotate_images(
    model: OpenedModel,
    images: Mapping[str, Path],
    find: BoxFinder | Sequence[Concept],
    values: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, LabelledImage | Exception]]:
    """Segment the objects in each image, and show the progress.

    Images are rotated according to their EXIF orientation, as labelling tools and trainers do.

    Args:
        model: segments the images.
        images: paths of the images by name.
        find: finds the boxes in an image; or the concepts whose instances are the objects.
        values: params of automatic mask generation and of concepts. They override the model's defaults.

    Yields:
        The name of each image with its objects, or with the error if the image cannot be annotated.

    Raises:
        BadParameter: a param has an unknown name or a value out of range.
    """
    params = read_params(model, values)
    refs = {name: ImageRef.path(path, upright=True) for name, path in images.items()}
    with ImagePrefetcher(model.engine.images) as source:
        source.announce(refs.values())
        scorer = Scorer(model.engine.with_images(source))
        for name, ref in tracked(refs.items(), "annotating", "image"):
            try:
                if callable(find):
                    yield name, _annotate(scorer, name, source.open(ref), find, params)
                else:
                    yield name, find_concepts(scorer.engine, name, ref, find, params)
            except (BadInput, BadData, OSError) as error:
                yield name, error


def _annotate(scorer: Scorer, name: str, image: OpenedImage, find: BoxFinder, params: Params) -> LabelledImage:
    """Return the objects of one image. Raises BadInput, BadData and OSError."""
    boxes = find(name, image)
    height, width = image.pixels().shape[:2]
    if boxes is None:
        predictions = scorer.predict_everything(scorer.engine.embed_opened(image), params)
        everything = [
            LabelledObject.from_prediction(0, prediction["mask_per_prediction"][0]) for prediction in predictions
        ]
        return LabelledImage(name, (height, width), [labelled for labelled in everything if labelled.area])
    prompts: list[Prompt] = []
    prompted: list[Detection] = []
    skipped = list(boxes.skipped)
    for detection in boxes.detections:
        box = _clip(detection.box, (height, width))
        if box is None:
            sides = ",".join(f"{side:g}" for side in detection.box)
            skipped.append(f"{detection.origin}: expected x1 < x2 and y1 < y2 within the image, got {sides}")
        else:
            prompts.append(Prompt(box=box))
            prompted.append(detection)
    objects: list[LabelledObject] = []
    for start in range(0, len(prompts), scorer.engine.max_prompts):
        group = slice(start, start + scorer.engine.max_prompts)
        embedded = scorer.engine.embed_opened(image)
        predictions = scorer.predict(embedded, prompts[group], False, params)
        for detection, prediction in zip(prompted[group], predictions, strict=True):
            labelled = LabelledObject.from_prediction(detection.category, prediction["mask_per_prediction"][0])
            if labelled.area:
                objects.append(labelled)
            else:
                skipped.append(f"{detection.origin}: its mask is empty")
    return LabelledImage(name, (height, width), objects, skipped)


def segment_everything(name: str, image: OpenedImage) -> None:
    """Return None, which requests automatic mask generation. This function is a `BoxFinder`."""


def finder_from_detector(detector: Detector) -> BoxFinder:
    """Return a finder that runs a detector. The finder raises BadInput if the detector fails on an image."""

    def find(name: str, image: OpenedImage) -> ImageBoxes:
        pixels = image.pixels()
        try:
            detections = detector(pixels)
        # Detectors are the code of other packages, which raises many types of exceptions.
        except (ValueError, TypeError, IndexError, ArithmeticError, RuntimeError) as error:
            raise BadInput("image", "an image that the detector can process", type(error).__name__) from None
        named = [detection for detection in detections if detection.category in detector.names]
        unnamed = [detection for detection in detections if detection.category not in detector.names]
        return ImageBoxes(named, [f"a box of class {detection.category}, which has no name" for detection in unnamed])

    return find


def finder_from_labels(boxes: MatchedBoxes) -> BoxFinder:
    """Return a finder that takes boxes from label files.

    The finder raises BadData if the label files state another size for an image, because its boxes, which are in
    pixels, would be in the wrong place.
    """

    def find(name: str, image: OpenedImage) -> ImageBoxes:
        height, width = image.pixels().shape[:2]
        image_boxes = boxes.of(name, (height, width))
        for stated in image_boxes.sizes - {(height, width)} if image_boxes.detections else ():
            turned = ""
            if stated == (width, height):
                turned = ". The stated size is that of the image rotated by 90 degrees"
                if image.key.endswith(UPRIGHT):
                    turned = ". The stated size is that of the image without its EXIF orientation"
            raise BadData(
                f"the label file states {stated[1]} x {stated[0]} pixels, but the image has {width} x {height} pixels, "
                f"so the boxes would be in the wrong place{turned}"
            )
        return image_boxes

    return find


def list_images(data: Path, without: Path | None = None) -> dict[str, Path]:
    """List the images in a folder and its subfolders.

    Args:
        data: the folder.
        without: a folder to skip, such as the output folder.

    Returns:
        Paths of the images, by their path relative to the folder.

    Raises:
        BadData: the folder has no images or cannot be read, two images have the same label file, or a file name is not
            valid UTF-8.
    """
    images = sources.image_files(data, without)
    for name in images:
        check_name(name)
    label_names.check({name: name for name in images}, str(data))
    return images


def open_sam(model: str, device: str = "") -> OpenedModel:
    """Open a model that may read images from local paths.

    Args:
        model: an MLflow model, a checkpoint, or an Ultralytics model name such as `sam_b.pt`. An Ultralytics name loads
            the original checkpoint from Hugging Face, unless a file of that name exists.
        device: torch device; empty for the model's own setting.

    Raises:
        BadModel: the model cannot be opened.
    """
    model = ULTRALYTICS.get(model, model) if not Path(model).exists() else model
    return open_model(model, device or None, local_paths=True)


def _clip(box: np.ndarray, size: tuple[int, ...]) -> np.ndarray | None:
    """Clip a box to the image. Returns None if the clipped box is empty."""
    height, width = size[:2]
    x1, y1, x2, y2 = np.clip(box, 0, (width, height, width, height)).astype(np.float32)
    return np.array([x1, y1, x2, y2]) if x1 < x2 and y1 < y2 else None
