"""Annotate a folder of images with masks, as label files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sam_endpoint.model.errors import BadData, BadInput
from sam_endpoint.model.images import ImageRef, OpenedImage
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts import Prompt
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch import detectors, labels, sources
from sam_endpoint.scoring.batch.boxes import Boxes, Detection
from sam_endpoint.scoring.batch.detectors import Detector
from sam_endpoint.scoring.batch.label_folder import beside, write
from sam_endpoint.scoring.batch.labels import Labelled, Thing
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.runtime import OpenedModel, open_model

# Returns the boxes of an image, by its name and its opened file; None requests automatic mask generation.
Finder = Callable[[str, OpenedImage], list[Detection] | None]
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
        BadParameter: a param is unknown or out of range.
    """
    rules = detectors.Rules(conf, iou, max_det, None if classes is None else tuple(classes))
    find = from_detector(detectors.load(det_model, rules, device)) if det_model else everything
    folder = Path(output_dir) if output_dir is not None else Path(data).absolute().parent / "labels"
    pending = {name: path for name, path in images_in(Path(data)).items() if not beside(folder, name, ".txt").exists()}
    for name, result in annotated(open_sam(sam_model, device), pending, find, params):
        if isinstance(result, Labelled):
            write(beside(folder, name, ".txt"), labels.yolo(result).encode())
        else:
            tqdm.write(f"failed       {name}: {result}", file=sys.stderr)


def annotated(
    model: OpenedModel, images: Mapping[str, Path], find: Finder, values: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Labelled | Exception]]:
    """Yield each image's name with its objects, or with the error that stopped it.

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
    refs = {name: ImageRef.path(path) for name, path in images.items()}
    with ImagePrefetcher(model.engine.images) as source:
        source.announce(refs.values())
        scorer = Scorer(model.engine.with_images(source))
        for name, ref in tqdm(refs.items(), unit="image", desc="annotating", disable=None):
            try:
                yield name, _annotate(scorer, name, source.open(ref), find, params)
            except (BadInput, OSError) as error:
                yield name, error


def _annotate(scorer: Scorer, name: str, image: OpenedImage, find: Finder, params: Params) -> Labelled:
    """Return the objects of one image. Raises BadInput and OSError."""
    detections = find(name, image)
    height, width = image.pixels().shape[:2]
    prompts = [Prompt(box=_within(detection.box, (height, width))) for detection in detections or []]
    things: list[Thing] = []
    if detections is None or prompts:
        embedded = scorer.engine.embed_opened(image)
        scorer.engine.check_prompts(prompts)
        if detections is None:
            predictions, categories = scorer.predict_everything(embedded, params), None
        else:
            predictions = scorer.predict(embedded, prompts, False, params)
            categories = [detection.category for detection in detections]
        masks = [prediction["mask_per_prediction"][0] for prediction in predictions]
        things = [
            labels.thing(number, mask) for number, mask in zip(categories or [0] * len(masks), masks, strict=True)
        ]
    return Labelled(name, (height, width), [thing for thing in things if thing.area])


def everything(name: str, image: OpenedImage) -> None:
    """Return None, which requests automatic mask generation."""


def from_detector(detector: Detector) -> Finder:
    """Return a finder that runs a detector."""
    return lambda name, image: detector(image.pixels())


def from_boxes(boxes: Boxes) -> Finder:
    """Return a finder that looks boxes up in label files."""

    def find(name: str, image: OpenedImage) -> list[Detection]:
        height, width = image.pixels().shape[:2]
        return boxes.of(name, (height, width))

    return find


def images_in(data: Path) -> dict[str, Path]:
    """Return the paths of the images in a folder and its subfolders, by relative path. Raises BadData."""
    files = sorted(file for file in data.rglob("*") if file.suffix.lower() in sources.IMAGES)
    if not files:
        raise BadData(f"'{data}': expected a folder of images ({', '.join(sources.IMAGES)})")
    images = {file.relative_to(data).as_posix(): file for file in files}
    stems = Counter(Path(name).with_suffix("") for name in images)
    duplicates = [name for name in images if stems[Path(name).with_suffix("")] > 1]
    if duplicates:
        raise BadData(f"'{data}': {' and '.join(duplicates[:2])} would have the same label file; rename one")
    return images


def open_sam(model: str, device: str = "") -> OpenedModel:
    """Open an MLflow model, a checkpoint or an Ultralytics model name, with local paths allowed. Raises BadModel."""
    model = ULTRALYTICS.get(model, model) if not Path(model).exists() else model
    return open_model(model, device or None, local_paths=True)


def _within(box: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Clip a box at the edges of the image, which detectors can exceed. Raises BadInput for an empty box."""
    height, width = size[:2]
    x1, y1, x2, y2 = np.clip(box, 0, (width, height, width, height))
    if x2 <= x1 or y2 <= y1:
        raise BadInput("box", "x1 < x2 and y1 < y2 within the image", ",".join(f"{side:g}" for side in box))
    return np.array([x1, y1, x2, y2], np.float32)
