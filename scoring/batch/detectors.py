"""Run object detectors from transformers and Ultralytics, whose boxes become prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
    MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
)

from sam_endpoint.model.boxes import nms
from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes import Detection


@dataclass(frozen=True)
class BoxFilter:
    """Selection of detected boxes.

    Attributes:
        conf: minimum score.
        iou: IoU threshold of the non-maximum suppression, which runs within each class.
        max_det: maximum number of boxes per image.
        classes: numbers or names of the accepted classes; None for all.
    """

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    classes: tuple[int | str, ...] | None = None


class Detector(Protocol):
    """Interface of a detector: a callable that returns the boxes in an image.

    Attributes:
        names: names of the categories by number.
    """

    names: dict[int, str]

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the boxes in an `(H, W, 3)` uint8 RGB image, in descending order of score."""


def load(checkpoint: str, box_filter: BoxFilter, device: str = "") -> Detector:
    """Load a detector.

    Args:
        checkpoint: Hugging Face id or folder of a transformers checkpoint; or an Ultralytics `.pt` file, if the package
            ultralytics is installed.
        box_filter: the boxes to return. A zero-shot detector searches for `box_filter.classes`.
        device: torch device; empty for `cuda` if available, else `cpu`.

    Returns:
        The detector.

    Raises:
        BadData: the checkpoint cannot be loaded, is not an object detector, or lacks one of `box_filter.classes`.
    """
    if checkpoint.endswith(".pt"):
        return UltralyticsDetector(checkpoint, box_filter, device)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).model_type
        if kind in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
            return ZeroShotDetector(checkpoint, box_filter, device)
        if kind in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            return ClosedSetDetector(checkpoint, box_filter, device)
    # The loaders of transformers raise many types of exceptions.
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadData(f"no detector can be loaded from '{checkpoint}': {reason}") from None
    raise BadData(f"'{checkpoint}' is not an object detector: transformers lists no object detection for '{kind}'")


class ClosedSetDetector:
    """A detector with a fixed set of classes, such as DETR, RT-DETR or YOLOS.

    Args:
        checkpoint: Hugging Face id or folder.
        box_filter: the boxes to return.
        device: torch device.
    """

    def __init__(self, checkpoint: str, box_filter: BoxFilter, device: str) -> None:
        self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        self.model = AutoModelForObjectDetection.from_pretrained(checkpoint, trust_remote_code=False).to(device).eval()
        self.names = {int(number): str(name) for number, name in self.model.config.id2label.items()}
        self.box_filter = box_filter
        _check_classes(self.names, box_filter)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the selected boxes in an `(H, W, 3)` uint8 RGB image, in descending order of score."""
        output = self.model(**self.processor(images=[image], return_tensors="pt").to(self.model.device))
        (result,) = self.processor.post_process_object_detection(
            output, threshold=self.box_filter.conf, target_sizes=[image.shape[:2]]
        )
        return filter_boxes(
            image, result["boxes"], result["scores"], result["labels"].tolist(), self.names, self.box_filter
        )


class ZeroShotDetector:
    """A detector of classes that the user names, such as OWL-ViT, OWLv2 or Grounding DINO.

    Args:
        checkpoint: Hugging Face id or folder.
        box_filter: the boxes to return. Its `classes` are the names of the objects to detect.
        device: torch device.

    Raises:
        BadData: `box_filter.classes` is missing or has class numbers.
    """

    def __init__(self, checkpoint: str, box_filter: BoxFilter, device: str) -> None:
        if not box_filter.classes or not all(isinstance(word, str) for word in box_filter.classes):
            raise BadData(
                f"'{checkpoint}' is a zero-shot detector; name the objects to detect, as in --classes \"cup, spoon\""
            )
        self.words = [str(word) for word in box_filter.classes]
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        self.model = (
            AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint, trust_remote_code=False).to(device).eval()
        )
        self.names = dict(enumerate(self.words))
        self.box_filter = box_filter

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the selected boxes in an `(H, W, 3)` uint8 RGB image, in descending order of score."""
        inputs = self.processor(images=[image], text=[self.words], return_tensors="pt").to(self.model.device)
        output = self.model(**inputs)
        (result,) = self.processor.post_process_grounded_object_detection(
            output, threshold=self.box_filter.conf, target_sizes=[image.shape[:2]], text_labels=[self.words]
        )
        numbers = [self._number(label) for label in result["text_labels"]]
        return filter_boxes(image, result["boxes"], result["scores"], numbers, self.names, self.box_filter)

    def _number(self, label: str) -> int:
        """Return the index of the class that fits a label. Grounding DINO can return parts of names, or several."""
        shared = [len(set(label.lower().split()) & set(word.lower().split())) for word in self.words]
        return self.words.index(label) if label in self.words else int(np.argmax(shared))


class UltralyticsDetector:
    """A detector from the package ultralytics, which is optional because of its licence (AGPL).

    Args:
        checkpoint: an Ultralytics `.pt` file.
        box_filter: the boxes to return.
        device: torch device; empty for Ultralytics' default.

    Raises:
        BadData: the package is not installed.
    """

    def __init__(self, checkpoint: str, box_filter: BoxFilter, device: str) -> None:
        try:
            from ultralytics import YOLO
        except ImportError:
            raise BadData(
                f"'{checkpoint}' needs the package ultralytics (licence AGPL), which is not installed; "
                "install it, or use a transformers checkpoint or --boxes"
            ) from None
        self.model = YOLO(checkpoint)
        self.names = dict(self.model.names)
        self.box_filter, self.device = box_filter, device or None
        _check_classes(self.names, box_filter)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the selected boxes in an `(H, W, 3)` uint8 RGB image, in descending order of score."""
        bgr = image[..., ::-1]
        (result,) = self.model(
            bgr,
            conf=self.box_filter.conf,
            iou=self.box_filter.iou,
            max_det=self.box_filter.max_det,
            device=self.device,
            verbose=False,
        )
        numbers = [int(number) for number in result.boxes.cls]
        return filter_boxes(image, result.boxes.xyxy, result.boxes.conf, numbers, self.names, self.box_filter)


def _check_classes(names: dict[int, str], box_filter: BoxFilter) -> None:
    """Raise BadData if the filter accepts a class that the detector lacks."""
    for accepted in box_filter.classes or ():
        if accepted not in names and accepted not in names.values():
            raise BadData(f"the detector has no class '{accepted}'; it has {', '.join(list(names.values())[:100])}")


def filter_boxes(
    image: np.ndarray,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    categories: Sequence[int],
    names: dict[int, str],
    box_filter: BoxFilter,
) -> list[Detection]:
    """Clip boxes to the image, and select boxes by score, class and non-maximum suppression.

    Args:
        image: `(H, W, 3)` image.
        boxes: `(N, 4)` x1, y1, x2, y2 in pixels.
        scores: `(N,)` scores.
        categories: N category numbers.
        names: names of the categories by number.
        box_filter: the boxes to select.

    Returns:
        The selected detections, in descending order of score.

    Example:
        >>> boxes = torch.tensor([[1.0, 1, 9, 9], [1, 1, 9, 8], [20, 20, 40, 40]])
        >>> scores = torch.tensor([0.9, 0.8, 0.7])
        >>> selected = filter_boxes(np.zeros((30, 30, 3)), boxes, scores, [0, 0, 0], {0: "cup"}, BoxFilter())
        >>> [detection.box.tolist() for detection in selected]
        [[1.0, 1.0, 9.0, 9.0], [20.0, 20.0, 30.0, 30.0]]
    """
    height, width = image.shape[:2]
    clipped = np.clip(boxes.float().cpu().numpy(), 0, np.array([width, height, width, height], np.float32))
    values = scores.float().cpu().numpy()
    valid = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]) & (values >= box_filter.conf)
    accepted = box_filter.classes
    keep: list[int] = []
    for category in sorted(set(categories)):
        if accepted is None or category in accepted or names.get(category) in accepted:
            members = [i for i, number in enumerate(categories) if number == category and valid[i]]
            keep += [members[i] for i in nms(clipped[members], values[members], box_filter.iou)]
    keep.sort(key=lambda i: -values[i])
    return [Detection(clipped[i], categories[i], float(values[i])) for i in keep[: box_filter.max_det]]
