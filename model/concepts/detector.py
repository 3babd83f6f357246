"""Find objects by text with a detector from transformers: the detector returns boxes, and SAM segments each box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES

from ..boxes import nms
from ..call import Call
from ..errors import BadInput
from ..prompts import Prompt
from .values import Concept, Instances, Thresholds

if TYPE_CHECKING:
    from ..embedded_image import EmbeddedImage
    from ..segmenter import Segmenter

Run = Callable[[Callable[[], Any], Call], Any]  # runs a network; `Segmenter.run` queues it
MAX_IOU = 0.5  # maximum IoU of the boxes of two instances of a concept
MAX_INSTANCES = 300  # per concept and image
MAX_NAMES = 100  # class names that an error message lists
PIXELS = "the image itself, because the detector of this model needs its pixels"


class DetectorFinder(ABC):
    """A detector that is packaged beside a SAM.

    Args:
        model: transformers' model.
        processor: transformers' processor of the model.

    Attributes:
        usual_threshold: minimum detection score that is usual for detectors of the class.
        names: names of the detector's classes by number; None for a detector that reads text.
    """

    takes_text = True
    takes_examples = False
    needs_pixels = True
    max_instances = MAX_INSTANCES
    usual_threshold: ClassVar[float]
    names: Mapping[int, str] | None = None

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        self.nbytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        # Detectors with a backbone of the package timm import it when they are loaded.
        self.requirements = ("timm==1.0.31",) if getattr(model.config, "use_timm_backbone", False) else ()

    def find(
        self,
        segmenter: Segmenter,
        image: EmbeddedImage,
        concepts: Sequence[Concept],
        thresholds: Thresholds,
        call: Call,
    ) -> list[Instances]:
        """Find the instances of texts. The score of an instance is the detector's. Args are those of the protocol."""
        if image.image is None:
            raise BadInput("image", PIXELS, "only an image_id")
        texts = [concept.text or "" for concept in concepts]
        self.check_texts(texts)
        pixels = image.image.pixels(call)
        instances = []
        for boxes, scores in self.detect(segmenter.run, pixels, texts, thresholds.score, call):
            boxes, scores = select_boxes(boxes, scores, image.size)
            prompts = [Prompt(box=box) for box in boxes.cpu().numpy()]
            with call.stage("prompt", len(prompts)):
                segmentations = segmenter.segment(image.embedding, prompts, multimask_output=False, call=call)
            empty = torch.zeros((0, *segmenter.family.low_res_size), device=segmenter.family.device)
            logits = torch.cat([empty, *(segmentation.logits for segmentation in segmentations)])
            instances.append(Instances(logits, boxes, scores))
        return instances

    def save(self, folder: Path) -> None:
        """Save the detector and its tokenizer as a checkpoint folder, which `load` reads."""
        self._model.save_pretrained(folder)
        self._processor.save_pretrained(folder)

    @abstractmethod
    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise BadInput if the detector cannot search for a text."""

    @abstractmethod
    def detect(
        self, run: Run, pixels: np.ndarray, texts: Sequence[str], threshold: float, call: Call
    ) -> list[tuple[Tensor, Tensor]]:
        """Detect the objects that texts describe.

        Args:
            run: runs the detector, and counts its time for the call.
            pixels: (height, width, 3) uint8 RGB.
            texts: the texts.
            threshold: minimum score.
            call: context of the request.

        Returns:
            For each text, (n, 4) boxes x1,y1,x2,y2 in pixels and (n,) scores, which may overlap.
        """

    def _run(self, pixels: np.ndarray, **text: Any) -> Any:
        inputs = self._processor(images=[pixels], return_tensors="pt", **text)
        return self._model(**inputs.to(self._model.device))


class ClosedSetDetector(DetectorFinder):
    """A detector with a fixed set of classes, such as DETR or RT-DETR. A text is the name of a class."""

    usual_threshold = 0.5

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.names = {int(number): str(name) for number, name in model.config.id2label.items()}
        self._numbers = {name.lower(): number for number, name in self.names.items()}

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise BadInput if a text is not the name of a class, in upper or lower case."""
        for text in texts:
            if text.lower() not in self._numbers:
                names = ", ".join(list(self._numbers)[:MAX_NAMES])
                raise BadInput("input_text", f"a class of the detector ({names})", "another text")

    def detect(
        self, run: Run, pixels: np.ndarray, texts: Sequence[str], threshold: float, call: Call
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the detector once for all texts."""
        with call.stage("detect"):
            output = run(lambda: self._run(pixels), call)
        (result,) = self._processor.post_process_object_detection(output, threshold, target_sizes=[pixels.shape[:2]])
        classes = [result["labels"] == self._numbers[text.lower()] for text in texts]
        return [(result["boxes"][members], result["scores"][members]) for members in classes]


class TextDetector(DetectorFinder):
    """A detector that reads text, such as Grounding DINO. It runs once per text, so that texts do not interact."""

    usual_threshold = 0.25

    def check_texts(self, texts: Sequence[str]) -> None:
        """Raise BadInput if the tokenizer knows no word of a text, or if a text has too many tokens."""
        tokenizer, config = self._processor.tokenizer, self._model.config
        max_tokens = getattr(config, "max_text_len", None) or config.text_config.max_position_embeddings
        for text in texts:
            tokens = tokenizer(self._phrase(text))["input_ids"]
            if len(tokens) > max_tokens:
                raise BadInput("input_text", f"a text of at most {max_tokens} tokens", f"{len(tokens)} tokens")
            words = tokenizer(self._phrase(text).rstrip(" ."), add_special_tokens=False)["input_ids"]
            if all(token == tokenizer.unk_token_id for token in words):
                raise BadInput("input_text", "a text with words that the detector's tokenizer knows", "unknown words")

    def _phrase(self, text: str) -> str:
        """Return a text in the form that Grounding DINO expects: a full stop ends a phrase."""
        return text.lower().replace(".", " ").strip() + "."

    def detect(
        self, run: Run, pixels: np.ndarray, texts: Sequence[str], threshold: float, call: Call
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the detector once per text."""
        detections = []
        for text in texts:
            with call.stage("detect"):
                output = run(partial(self._run, pixels, text=[self._phrase(text)]), call)
            detections.append(self._boxes(output, pixels, threshold))
        return detections

    def _boxes(self, output: Any, pixels: np.ndarray, threshold: float) -> tuple[Tensor, Tensor]:
        sizes = [pixels.shape[:2]]
        # The inputs are only needed to read the words of each box, which are not used.
        options = {"input_ids": torch.zeros(1, output.logits.shape[-1], dtype=torch.long), "text_threshold": 1.0}
        (result,) = self._processor.post_process_grounded_object_detection(
            output, threshold=threshold, target_sizes=sizes, **options
        )
        return result["boxes"], result["scores"]


class ParallelTextDetector(TextDetector):
    """A detector that compares one set of boxes with each text, such as OWLv2. It runs once for all texts."""

    usual_threshold = 0.1

    def _phrase(self, text: str) -> str:
        return text

    def detect(
        self, run: Run, pixels: np.ndarray, texts: Sequence[str], threshold: float, call: Call
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the detector once, and select the boxes of each text independently of the other texts."""
        with call.stage("detect"):
            output = run(lambda: self._run(pixels, text=[list(texts)]), call)
        detections = []
        for i in range(len(texts)):
            own = SimpleNamespace(logits=output.logits[..., i : i + 1], pred_boxes=output.pred_boxes)
            (result,) = self._processor.post_process_grounded_object_detection(
                own, threshold=threshold, target_sizes=[pixels.shape[:2]]
            )
            detections.append((result["boxes"], result["scores"]))
        return detections


TEXT_DETECTORS: dict[str, type[DetectorFinder]] = {  # by the config's `model_type`
    "grounding-dino": TextDetector,
    "mm-grounding-dino": TextDetector,
    "owlv2": ParallelTextDetector,
    "owlvit": ParallelTextDetector,
}


def load(checkpoint: str, device: str | torch.device = "cpu") -> DetectorFinder:
    """Load a detector.

    Args:
        checkpoint: Hugging Face id or folder of a checkpoint for transformers. Code in the checkpoint does not run.
        device: the device for the weights.

    Raises:
        ValueError: the checkpoint cannot be loaded, or is not a supported detector.
    """
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(checkpoint, **options).model_type
        if kind in TEXT_DETECTORS:
            finder = TEXT_DETECTORS[kind]
            processor = AutoProcessor.from_pretrained(checkpoint, **options)
            model: Any = AutoModelForZeroShotObjectDetection.from_pretrained(checkpoint, dtype=torch.float32, **options)
        elif kind in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
            finder = ClosedSetDetector
            processor = AutoImageProcessor.from_pretrained(checkpoint, **options)
            model = AutoModelForObjectDetection.from_pretrained(checkpoint, dtype=torch.float32, **options)
        else:
            names = ", ".join(TEXT_DETECTORS)
            raise ValueError(f"expected one of {names}, or a detector with a fixed set of classes, got a '{kind}'")
    # The loaders of transformers raise many types of exceptions.
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"no detector can be loaded from '{checkpoint}': {reason}") from None
    model.requires_grad_(False)
    return finder(model.eval().to(device), processor)


def select_boxes(
    boxes: Tensor, scores: Tensor, size: tuple[int, int], max_iou: float = MAX_IOU, max_count: int = MAX_INSTANCES
) -> tuple[Tensor, Tensor]:
    """Clip boxes to an image, and remove duplicates and boxes outside.

    Args:
        boxes: (n, 4) x1,y1,x2,y2 in pixels.
        scores: (n,) scores.
        size: (height, width) of the image.
        max_iou: of two boxes with a higher IoU, the box with the higher score is kept.
        max_count: maximum number of boxes.

    Returns:
        The selected boxes and their scores, float32 on the CPU, in descending order of score.
    """
    limits = torch.tensor([size[1], size[0]] * 2)
    clipped = torch.minimum(boxes.float().cpu().clamp(min=0), limits)
    inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    clipped, scores = clipped[inside], scores.float().cpu()[inside]
    keep = nms(clipped.numpy(), scores.numpy(), max_iou)[:max_count]
    return clipped[keep], scores[keep]
