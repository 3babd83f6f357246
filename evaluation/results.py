"""Collect the results of one model during an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from PIL import Image

from sam_endpoint.evaluation.detections import DetectedBox, DetectedMask, segment_detections
from sam_endpoint.evaluation.ground_truth import AnnotatedImage
from sam_endpoint.evaluation.metrics import object_row
from sam_endpoint.evaluation.plots import Case, draw_case, draw_masks
from sam_endpoint.evaluation.protocol import ObjectResult, measure_objects
from sam_endpoint.model.segmenter import Segmenter

MASKS_IN_MEMORY = 16  # objects of an image that are measured together
MAX_CASES = 12  # objects with the lowest IoU that are drawn
MAX_TYPICAL = 96  # evenly distributed objects that are drawn, from which the typical cases are chosen
MAX_IMAGES = 8  # images that are drawn


class ModelResults:
    """The results of one model.

    Args:
        name: The name of the model in reports.
        segmenter: The model.

    Attributes:
        rows: The metrics of each object.
        worst_cases: The objects with the lowest IoU from a box, the lowest first.
        drawn_cases: Every n-th object, so that there are up to MAX_TYPICAL.
        images: Drawings of the first images with their masks.
        detected_masks: The masks of the detector's boxes.
    """

    def __init__(self, name: str, segmenter: Segmenter) -> None:
        self.name = name
        self.segmenter = segmenter
        self.rows: list[dict[str, Any]] = []
        self.worst_cases: list[Case] = []
        self.drawn_cases: list[Case] = []
        self.images: list[Image.Image] = []
        self.detected_masks: list[DetectedMask] = []
        self._interval = 1  # of the objects in `drawn_cases`

    @property
    def objects(self) -> pd.DataFrame:
        """A row for each object: `image`, `thing` (its name), `size` and the columns of `metrics.object_row`."""
        return pd.DataFrame(self.rows)

    def measure(
        self, image: AnnotatedImage, detections: Sequence[DetectedBox]
    ) -> tuple[list[ObjectResult], list[DetectedMask]]:
        """Segment the objects of an image and the boxes of a detector.

        Args:
            image: The image and its objects.
            detections: The boxes of the detector in this image.

        Returns:
            A result for each object, and a mask for each box.

        Raises:
            Overloaded: The image needs more memory than available.
        """
        (embedding,) = self.segmenter.embed([image.pixels])
        results: list[ObjectResult] = []
        for start in range(0, len(image.objects), MASKS_IN_MEMORY):
            true_masks = [true.mask for true in image.objects[start : start + MASKS_IN_MEMORY]]
            results += measure_objects(self.segmenter, embedding, true_masks)
        return results, segment_detections(self.segmenter, embedding, detections) if detections else []

    def add(
        self, image: AnnotatedImage, results: Sequence[ObjectResult], detected_masks: Sequence[DetectedMask]
    ) -> None:
        """Add the results of an image.

        Args:
            image: The image and its objects.
            results: The result for each object, from `measure`.
            detected_masks: The masks of the detector's boxes, from `measure`.
        """
        self.detected_masks += detected_masks
        for true, result in zip(image.objects, results, strict=True):
            is_bad = len(self.worst_cases) < MAX_CASES or result.qualities["box"].iou < self.worst_cases[-1].iou
            is_nth = len(self.rows) % self._interval == 0
            self.rows.append({"image": image.name, "thing": true.name, "size": true.size, **object_row(result)})
            if not is_bad and not is_nth:
                continue
            case = draw_case(image, true, result)
            if is_bad:
                self.worst_cases = sorted([*self.worst_cases, case], key=lambda case: case.iou)[:MAX_CASES]
            if is_nth:
                self.drawn_cases.append(case)
                if len(self.drawn_cases) == MAX_TYPICAL:
                    self.drawn_cases, self._interval = self.drawn_cases[::2], 2 * self._interval
        if results and len(self.images) < MAX_IMAGES:
            self.images.append(draw_masks(image, results))
