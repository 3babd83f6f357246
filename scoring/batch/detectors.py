"""Detectors whose boxes become masks: any transformers checkpoint for object detection, with or without words."""

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

from model.everything import nms
from scoring.batch.boxes import Detection
from scoring.batch.sources import BadTable


@dataclass(frozen=True)
class Rules:
    """Which boxes count: score at least `conf`; of two of one class with an IoU above `iou` the better; at most
    `max_det` an image; only classes in `classes` (numbers or names), None for all."""

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 300
    classes: tuple[int | str, ...] | None = None


class Detector(Protocol):
    """The categories' names by number, and the boxes in an (h, w, 3) uint8 RGB image, best first."""

    names: dict[int, str]

    def __call__(self, image: np.ndarray) -> list[Detection]: ...


def load(checkpoint: str, rules: Rules, device: str = "") -> Detector:
    """A detector from a Hugging Face id or folder; or, from an Ultralytics `.pt` file, where that package is installed.

    Raises BadTable for a checkpoint that detects nothing or cannot be had.
    """
    if checkpoint.endswith(".pt"):
        return Ultralytics(checkpoint, rules, device)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = AutoConfig.from_pretrained(checkpoint).model_type
        if kind in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
            return ZeroShot(checkpoint, rules, device)
        if kind in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            return Trained(checkpoint, rules, device)
    except (OSError, ValueError) as error:
        raise BadTable(f"no detector can be loaded from '{checkpoint}': {str(error).splitlines()[0]}") from None
    raise BadTable(f"'{checkpoint}' is a {kind}, which transformers does not list for object detection")


class Trained:
    """A detector of the classes it was trained on: DETR and its kin, RT-DETR, YOLOS."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        self.processor: Any = AutoImageProcessor.from_pretrained(checkpoint)
        self.model = AutoModelForObjectDetection.from_pretrained(checkpoint).to(device).eval()
        self.names = {int(number): str(name) for number, name in self.model.config.id2label.items()}
        self.rules = rules

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        output = self.model(**self.processor(images=[image], return_tensors="pt").to(self.model.device))
        (found,) = self.processor.post_process_object_detection(
            output, threshold=self.rules.conf, target_sizes=[image.shape[:2]]
        )
        return chosen(image, found["boxes"], found["scores"], found["labels"].tolist(), self.names, self.rules)


class ZeroShot:
    """A detector of what words say: OWL-ViT, OWLv2, Grounding DINO. The words are `rules.classes`."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        if not rules.classes or not all(isinstance(word, str) for word in rules.classes):
            raise BadTable(f"'{checkpoint}' looks for words: name them, as in --classes \"cup, spoon\"")
        self.words = [str(word) for word in rules.classes]
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint)
        self.model = AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint).to(device).eval()
        self.names = dict(enumerate(self.words))
        self.rules = rules

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> list[Detection]:
        inputs = self.processor(images=[image], text=[self.words], return_tensors="pt").to(self.model.device)
        output = self.model(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            output, threshold=self.rules.conf, target_sizes=[image.shape[:2]], text_labels=[self.words]
        )
        numbers = [self._number(label) for label in found["text_labels"]]
        return chosen(image, found["boxes"], found["scores"], numbers, self.names, self.rules)

    def _number(self, label: str) -> int:
        """Which of the words a label is; Grounding DINO answers with parts of words and with several."""
        shared = [len(set(label.lower().split()) & set(word.lower().split())) for word in self.words]
        return self.words.index(label) if label in self.words else int(np.argmax(shared))


class Ultralytics:
    """One of Ultralytics' own detectors; their package is the user's choice (AGPL) and never needed."""

    def __init__(self, checkpoint: str, rules: Rules, device: str) -> None:
        try:
            from ultralytics import YOLO
        except ImportError:
            raise BadTable(
                f"'{checkpoint}' needs the package ultralytics (AGPL), which is not installed; "
                "or give a transformers checkpoint, or boxes"
            ) from None
        self.model = YOLO(checkpoint)
        self.names = dict(self.model.names)
        self.rules, self.device = rules, device or None

    def __call__(self, image: np.ndarray) -> list[Detection]:
        bgr = image[..., ::-1]
        (found,) = self.model(
            bgr, conf=self.rules.conf, iou=self.rules.iou, max_det=self.rules.max_det, device=self.device, verbose=False
        )
        numbers = [int(one) for one in found.boxes.cls]
        return chosen(image, found.boxes.xyxy, found.boxes.conf, numbers, self.names, self.rules)


def chosen(
    image: np.ndarray,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    categories: Sequence[int],
    names: dict[int, str],
    rules: Rules,
) -> list[Detection]:
    """The boxes (n, 4) x1, y1, x2, y2 with their scores (n,) that the rules leave, best first, cut at the edges of
    the image."""
    height, width = image.shape[:2]
    edges = np.clip(boxes.float().cpu().numpy(), 0, np.array([width, height, width, height], np.float32))
    values = scores.float().cpu().numpy()
    real = (edges[:, 2] > edges[:, 0]) & (edges[:, 3] > edges[:, 1]) & (values >= rules.conf)
    wanted = rules.classes
    kept: list[int] = []
    for category in sorted(set(categories)):
        if wanted is None or category in wanted or names.get(category) in wanted:
            members = [i for i, one in enumerate(categories) if one == category and real[i]]
            kept += [members[i] for i in nms(edges[members], values[members], rules.iou)]
    kept.sort(key=lambda i: -values[i])
    return [Detection(edges[i], categories[i], float(values[i])) for i in kept[: rules.max_det]]
