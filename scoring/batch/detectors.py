"""Run object detectors from transformers and Ultralytics, whose boxes become prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sam_endpoint.model.call import UNTRACKED, Call
from sam_endpoint.model.concepts import detector
from sam_endpoint.model.concepts.detector import DetectorFinder, select_boxes
from sam_endpoint.model.errors import BadData, BadInput
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
    try:
        finder = detector.load(checkpoint, device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except ValueError as error:
        raise BadData(str(error)) from None
    return TransformersDetector(finder, box_filter)


def identify(checkpoint: str) -> str | dict[str, str]:
    """Return a value that identifies a detector, and changes when it is trained again.

    Args:
        checkpoint: as for `load`.

    Returns:
        The SHA-256 of the checkpoint's files by name; for a checkpoint that is not on this machine, its id.
    """
    place = Path(checkpoint)
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    digests = {}
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests or checkpoint


class TransformersDetector:
    """A detector from transformers, which finds objects of its classes or of the classes that the user names.

    Args:
        finder: the detector.
        box_filter: the boxes to return. For a detector that reads text, `classes` are the texts.

    Raises:
        BadData: `box_filter.classes` has a class that the detector lacks; or, for a detector that reads text, it is
            missing or has class numbers.
    """

    def __init__(self, finder: DetectorFinder, box_filter: BoxFilter) -> None:
        self.finder, self.box_filter = finder, box_filter
        if finder.names is not None:
            self.names = dict(finder.names)
            _check_classes(self.names, box_filter)
        else:
            words = [word for word in box_filter.classes or () if isinstance(word, str)]
            if not words or len(words) < len(box_filter.classes or ()):
                raise BadData('this is a zero-shot detector; name the objects to detect, as in --classes "cup, spoon"')
            try:
                finder.check_texts(words)
            except BadInput as error:
                raise BadData(f"--classes: expected {error.expected}, got {error.got}") from None
            self.names = dict(enumerate(words))

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return the selected boxes in an `(H, W, 3)` uint8 RGB image, in descending order of score."""
        numbers = {name.lower(): number for number, name in self.names.items()}
        by_text = self.finder.detect(_run_now, image, list(numbers), self.box_filter.conf, UNTRACKED)
        return filter_boxes(
            image,
            torch.cat([boxes for boxes, _ in by_text]),
            torch.cat([scores for _, scores in by_text]),
            [number for number, (boxes, _) in zip(numbers.values(), by_text, strict=True) for _ in boxes],
            self.names,
            self.box_filter,
        )


def _run_now(work: Callable[[], Any], call: Call) -> Any:
    return work()


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
    accepted = box_filter.classes
    numbers = torch.tensor(list(categories), device=boxes.device)
    detections: list[Detection] = []
    for category in sorted(set(categories)):
        if accepted is None or category in accepted or names.get(category) in accepted:
            members = (numbers == category) & (scores >= box_filter.conf)
            selected = select_boxes(
                boxes[members], scores[members], image.shape[:2], box_filter.iou, box_filter.max_det
            )
            detections += [Detection(box.numpy(), category, float(score)) for box, score in zip(*selected, strict=True)]
    detections.sort(key=lambda detection: -detection.score)
    return detections[: box_filter.max_det]
