"""Object detectors whose boxes serve as prompts: closed-set and zero-shot transformers checkpoints, and Ultralytics."""

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

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.everything import nms
from sam_endpoint.scoring.batch.boxes import Detection


@dataclass(frozen=True)
class Rules:
    """Filters for detected boxes.

    Attributes:
        conf: minimum score.
        iou: threshold of the non-maximum suppression within each class.
        max_det: maximum number of boxes per image.
        classes: numbers or names of the accepted classes; None for all.
    """

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    classes: tuple[int | str, ...] | None = None


class Detector(Protocol):
    """Callable that returns the boxes in an (h, w, 3) uint8 RGB image in descending order of score.

    Attributes:
        names: names of the categories by number.
    """

    names: dict[int, str]

    def __call__(self, image: np.ndarray) -> list[Detection]: ...


def load(checkpoint: str, rules: Rules, device: str = "") -> Detector:
    """Load a detector.

    Args:
        checkpoint: a Hugging Face id or folder, or an Ultralytics `.pt` file if that package is installed.
        rules: filters for the boxes.
        device: torch device; by default "cuda" if available, else "cpu".

    Raises:
        BadData: the checkpoint cannot be loaded, is not an object detector, or does not know a class of the rules.
    """
    if checkpoint.endswith(".pt"):
        return Ultralytics(checkpoint, rules, device)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False).model_type
        if kind in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
            return ZeroShot(checkpoint, rules, device)
        if kind in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            return Trained(checkpoint, rules, device)
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:  # of transformers' loaders
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadData(f"no detector can be loaded from '{checkpoint}': {reason}") from None
    raise BadData(f"'{checkpoint}' is a {kind}, which transformers does not list for object detection")


class Trained:
    """A closed-set detector, such as DETR, RT-DETR or YOLOS."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        self.model = AutoModelForObjectDetection.from_pretrained(checkpoint, trust_remote_code=False).to(device).eval()
        self.names = {int(number): str(name) for number, name in self.model.config.id2label.items()}
        self.rules = rules
        _check_classes(self.names, rules)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        output = self.model(**self.processor(images=[image], return_tensors="pt").to(self.model.device))
        (result,) = self.processor.post_process_object_detection(
            output, threshold=self.rules.conf, target_sizes=[image.shape[:2]]
        )
        return chosen(image, result["boxes"], result["scores"], result["labels"].tolist(), self.names, self.rules)


class ZeroShot:
    """A zero-shot detector, such as OWL-ViT, OWLv2 or Grounding DINO, prompted with `rules.classes`."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        if not rules.classes or not all(isinstance(word, str) for word in rules.classes):
            raise BadData(f"'{checkpoint}' looks for words: name them, as in --classes \"cup, spoon\"")
        self.words = [str(word) for word in rules.classes]
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        self.model = (
            AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint, trust_remote_code=False).to(device).eval()
        )
        self.names = dict(enumerate(self.words))
        self.rules = rules

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        inputs = self.processor(images=[image], text=[self.words], return_tensors="pt").to(self.model.device)
        output = self.model(**inputs)
        (result,) = self.processor.post_process_grounded_object_detection(
            output, threshold=self.rules.conf, target_sizes=[image.shape[:2]], text_labels=[self.words]
        )
        numbers = [self._number(label) for label in result["text_labels"]]
        return chosen(image, result["boxes"], result["scores"], numbers, self.names, self.rules)

    def _number(self, label: str) -> int:
        """Return the index of the word that matches a label best; Grounding DINO returns parts of words or several."""
        shared = [len(set(label.lower().split()) & set(word.lower().split())) for word in self.words]
        return self.words.index(label) if label in self.words else int(np.argmax(shared))


class Ultralytics:
    """An Ultralytics detector. The ultralytics package (AGPL) is optional."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        try:
            from ultralytics import YOLO
        except ImportError:
            raise BadData(
                f"'{checkpoint}' needs the package ultralytics (AGPL), which is not installed; "
                "or give a transformers checkpoint, or boxes"
            ) from None
        self.model = YOLO(checkpoint)
        self.names = dict(self.model.names)
        self.rules, self.device = rules, device or None
        _check_classes(self.names, rules)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        bgr = image[..., ::-1]
        (result,) = self.model(
            bgr, conf=self.rules.conf, iou=self.rules.iou, max_det=self.rules.max_det, device=self.device, verbose=False
        )
        numbers = [int(number) for number in result.boxes.cls]
        return chosen(image, result.boxes.xyxy, result.boxes.conf, numbers, self.names, self.rules)


def _check_classes(names: dict[int, str], rules: Rules) -> None:
    """Raise BadData if the rules accept a class that the detector does not know."""
    for accepted in rules.classes or ():
        if accepted not in names and accepted not in names.values():
            raise BadData(f"the detector has no class '{accepted}'; it has {', '.join(list(names.values())[:100])}")


def chosen(
    image: np.ndarray,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    categories: Sequence[int],
    names: dict[int, str],
    rules: Rules,
) -> list[Detection]:
    """Filter boxes by the rules and clip them at the edges of the image.

    Args:
        image: (h, w, 3) image.
        boxes: (n, 4) x1, y1, x2, y2 in pixels.
        scores: (n,) scores.
        categories: n category numbers.
        names: names of the categories by number.
        rules: filters.

    Returns:
        The remaining detections in descending order of score.
    """
    height, width = image.shape[:2]
    edges = np.clip(boxes.float().cpu().numpy(), 0, np.array([width, height, width, height], np.float32))
    values = scores.float().cpu().numpy()
    valid = (edges[:, 2] > edges[:, 0]) & (edges[:, 3] > edges[:, 1]) & (values >= rules.conf)
    accepted = rules.classes
    keep: list[int] = []
    for category in sorted(set(categories)):
        if accepted is None or category in accepted or names.get(category) in accepted:
            members = [i for i, number in enumerate(categories) if number == category and valid[i]]
            keep += [members[i] for i in nms(edges[members], values[members], rules.iou)]
    keep.sort(key=lambda i: -values[i])
    return [Detection(edges[i], categories[i], float(values[i])) for i in keep[: rules.max_det]]
