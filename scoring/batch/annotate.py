"""Annotate a folder of images with masks, as label files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sam_endpoint.model.errors import BadData, BadInput, OutputConflict
from sam_endpoint.model.images import ImageRef, OpenedImage
from sam_endpoint.model.images.reader import UPRIGHT
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch import detectors, label_names, labels, sources
from sam_endpoint.scoring.batch.boxes import Detection, ImageBoxes, Matched
from sam_endpoint.scoring.batch.boxes.yolo import read_classes
from sam_endpoint.scoring.batch.detectors import Detector
from sam_endpoint.scoring.batch.files import shown
from sam_endpoint.scoring.batch.label_folder import write
from sam_endpoint.scoring.batch.label_names import CLASSES, label_file
from sam_endpoint.scoring.batch.labels import Labelled, Thing
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.batch.progress import tracked
from sam_endpoint.scoring.runtime import OpenedModel, open_model

# Returns the boxes of an image, by its name and its opened file; None requests automatic mask generation.
Finder = Callable[[str, OpenedImage], ImageBoxes | None]
EVERYTHING = {0: "object"}
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
    """Write a YOLO segmentation file for each image in a folder; replaces `ultralytics.data.annotator.auto_annotate`.

    A `classes.txt` beside the files names the classes. The EXIF orientation of images is applied.

    Args:
        data: folder of images.
        det_model: a detector (see `detectors.load`); None segments every object as class 0.
        sam_model: an MLflow model, a checkpoint, or an Ultralytics model name.
        device: torch device; by default a GPU if available.
        conf: minimum score of a box.
        iou: threshold of the non-maximum suppression.
        imgsz: ignored; the detectors choose their own input size.
        max_det: maximum number of boxes per image.
        classes: accepted classes; None for all.
        output_dir: by default a folder `labels` beside `data`. Images that already have a file there are skipped.
        params: params of automatic mask generation that override the model's, such as `pred_iou_thresh`.

    Raises:
        BadData: there are no images, or the detector cannot be loaded.
        OutputConflict: the folder has a `classes.txt` of other classes.
        BadParameter: a param is unknown or out of range.
    """
    rules = detectors.Rules(conf, iou, max_det, None if classes is None else tuple(classes))
    folder = Path(output_dir) if output_dir is not None else Path(data).absolute().parent / "labels"
    images = images_in(Path(data), without=folder)
    find: Finder = everything
    names = EVERYTHING
    if det_model:
        detector = detectors.load(det_model, rules, device)
        find, names = from_detector(detector), detector.names
    write_classes(folder, names)
    pending = {name: path for name, path in images.items() if not label_file(folder, name, ".txt").exists()}
    for name, result in annotated(open_sam(sam_model, device), pending, find, params):
        if isinstance(result, Labelled):
            write(label_file(folder, name, ".txt"), labels.yolo(result, names).encode())
            for reason in result.skipped:
                tqdm.write(f"skipped      {name} {reason}", file=sys.stderr)
        else:
            tqdm.write(f"failed       {name}: {result}", file=sys.stderr)


def write_classes(folder: Path, names: Mapping[int, str]) -> None:
    """Write a `classes.txt` with the names of YOLO's classes.

    Raises:
        OutputConflict: the folder has other classes, so that labels of both would be mixed.
        BadData: a name does not fit on a line.
    """
    text = labels.classes_text(names)
    file = folder / f"{CLASSES}.txt"
    if file.exists() and list(read_classes(file).values()) != [line.strip() for line in text.split("\n")[:-1]]:
        raise OutputConflict(f"'{file}' lists other classes; choose another output folder")
    write(file, text.encode())


def annotated(
    model: OpenedModel, images: Mapping[str, Path], find: Finder, values: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Labelled | Exception]]:
    """Yield each image's name with its objects, or with the error that stopped it.

    The EXIF orientation of images is applied, as labelling tools and trainers do.

    Args:
        model: segments the images.
        images: paths by name.
        find: returns the boxes of an image.
        values: params of automatic mask generation, over the model's own.

    Raises:
        BadParameter: a param is unknown or out of range.
    """
    params = replace(
        model.defaults.read(values or {}), mask_encoding="rle", on_error="raise", response_format="model_card"
    )
    refs = {name: ImageRef.path(path, upright=True) for name, path in images.items()}
    with ImagePrefetcher(model.engine.images) as source:
        source.announce(refs.values())
        scorer = Scorer(model.engine.with_images(source))
        for name, ref in tracked(refs.items(), "annotating", "image"):
            try:
                yield name, _annotate(scorer, name, source.open(ref), find, params)
            except (BadInput, BadData, OSError) as error:
                yield name, error


def _annotate(scorer: Scorer, name: str, image: OpenedImage, find: Finder, params: Params) -> Labelled:
    """Return the objects of one image. Raises BadInput, BadData and OSError."""
    found = find(name, image)
    height, width = image.pixels().shape[:2]
    if found is None:
        predictions = scorer.predict_everything(scorer.engine.embed_opened(image), params)
        objects = [labels.thing(0, prediction["mask_per_prediction"][0]) for prediction in predictions]
        return Labelled(name, (height, width), [thing for thing in objects if thing.area])
    prompts: list[Prompt] = []
    prompted: list[Detection] = []
    skipped = list(found.skipped)
    for detection in found.detections:
        box = _within(detection.box, (height, width))
        if box is None:
            sides = ",".join(f"{side:g}" for side in detection.box)
            skipped.append(f"{detection.origin}: expected x1 < x2 and y1 < y2 within the image, got {sides}")
        else:
            prompts.append(Prompt(box=box))
            prompted.append(detection)
    things: list[Thing] = []
    for start in range(0, len(prompts), scorer.engine.max_prompts):
        group = slice(start, start + scorer.engine.max_prompts)
        embedded = scorer.engine.embed_opened(image)
        predictions = scorer.predict(embedded, prompts[group], False, params)
        for detection, prediction in zip(prompted[group], predictions, strict=True):
            thing = labels.thing(detection.category, prediction["mask_per_prediction"][0])
            if thing.area:
                things.append(thing)
            else:
                skipped.append(f"{detection.origin}: its mask is empty")
    return Labelled(name, (height, width), things, skipped)


def everything(name: str, image: OpenedImage) -> None:
    """Return None, which requests automatic mask generation."""


def from_detector(detector: Detector) -> Finder:
    """Return a finder that runs a detector. It raises BadInput for an image that the detector fails on."""

    def find(name: str, image: OpenedImage) -> ImageBoxes:
        pixels = image.pixels()
        try:
            detections = detector(pixels)
        except (ValueError, TypeError, IndexError, ArithmeticError, RuntimeError) as error:  # in other packages' code
            raise BadInput("image", "an image that the detector can process", type(error).__name__) from None
        known = [detection for detection in detections if detection.category in detector.names]
        unknown = [detection for detection in detections if detection.category not in detector.names]
        return ImageBoxes(known, [f"a box of class {detection.category}, which has no name" for detection in unknown])

    return find


def from_boxes(boxes: Matched) -> Finder:
    """Return a finder that looks boxes up in label files.

    It raises BadData for an image that has another size in the label files, whose coordinates would be others.
    """

    def find(name: str, image: OpenedImage) -> ImageBoxes:
        height, width = image.pixels().shape[:2]
        found = boxes.of(name, (height, width))
        for stated in found.sizes - {(height, width)} if found.detections else ():
            turned = ""
            if stated == (width, height):
                turned = ", turned by 90 degrees"
                if image.key.endswith(UPRIGHT):
                    turned = ", the size of the stored pixels, which the EXIF orientation turns by 90 degrees"
            raise BadData(
                f"the label file states {stated[1]} x {stated[0]} pixels{turned}; the image as shown has "
                f"{width} x {height}. Its boxes would be in other coordinates"
            )
        return found

    return find


def images_in(data: Path, without: Path | None = None) -> dict[str, Path]:
    """Return the paths of the images in a folder and its subfolders, by relative path.

    Args:
        data: the folder.
        without: a folder that is skipped, such as that of the output.

    Raises:
        BadData: there are no images, or two would have the same label file.
        OSError: a folder cannot be read.
    """
    images = sources.image_files(data, without)
    for name in images:
        if shown(name) != name:
            raise BadData(f"'{data}': the name {shown(name)} is not text in UTF-8; rename the file")
    label_names.check({name: name for name in images}, str(data))
    return images


def open_sam(model: str, device: str = "") -> OpenedModel:
    """Open an MLflow model, a checkpoint or an Ultralytics model name, with local paths allowed. Raises BadModel."""
    model = ULTRALYTICS.get(model, model) if not Path(model).exists() else model
    return open_model(model, device or None, local_paths=True)


def _within(box: np.ndarray, size: tuple[int, ...]) -> np.ndarray | None:
    """Clip a box at the edges of the image, which boxes can exceed. Return None if nothing is left."""
    height, width = size[:2]
    x1, y1, x2, y2 = np.clip(box, 0, (width, height, width, height)).astype(np.float32)
    return np.array([x1, y1, x2, y2]) if x1 < x2 and y1 < y2 else None
