"""Find objects by example: segment everything, and keep the masks that the image encoder sees as the examples.

As in PerSAM (Zhang et al. 2023, "Personalize Segment Anything Model with One Shot"), the mean of the encoder's features
under a mask describes an object, and the cosine compares two descriptions. PerSAM looks for one object. Here, all masks
of automatic mask generation are compared, so every instance is found. A mask that is closer to a counter-example than
to every example is dropped, as in a classifier by nearest prototypes (Snell et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..call import Call
from ..everything import Box, Grid, everything
from ..prompts import Prompt
from ..segmentation import Embedding
from .overlaps import distinct_masks
from .values import Concept, Instances, Thresholds

if TYPE_CHECKING:
    from ..embedded_image import EmbeddedImage
    from ..families.family import Family
    from ..segmenter import Segmenter

# Filters of candidates. They are lower than the defaults of Grid, because the similarity filters masks too.
CANDIDATES = Grid(pred_iou_thresh=0.7, stability_score_thresh=0.8)
MAX_OVERLAP = 0.5  # two masks are one object if their intersection exceeds this share of the smaller mask
POINT_MARGIN = 0.3  # a grid point is decoded if its cell of the feature map is at most this much too dissimilar


@dataclass(frozen=True)
class Candidates:
    """The n objects of an image that may be instances, in descending order of predicted IoU.

    Attributes:
        boxes: (n, 4) float32 x1,y1,x2,y2 in pixels of the image.
        logits: (n, h, w) float32 low-resolution logits.
        inside: (n, h, w) bool masks of the logits.
        vectors: (n, channels) float32 unit vectors that describe the objects.
    """

    boxes: np.ndarray
    logits: Tensor
    inside: Tensor
    vectors: Tensor


class ExampleFinder:
    """Finds the objects that look like examples, with the encoder and the decoder of any model.

    Args:
        family: the model.
    """

    takes_text = False
    takes_examples = True
    needs_pixels = False
    nbytes = 0
    max_instances = 0  # `everything` counts the memory of its masks

    def __init__(self, family: Family) -> None:
        self._family = family

    def check_texts(self, texts: Sequence[str]) -> None:
        """Do nothing, because the finder never gets a concept with a text."""

    def find(
        self,
        segmenter: Segmenter,
        image: EmbeddedImage,
        concepts: Sequence[Concept],
        thresholds: Thresholds,
        call: Call,
    ) -> list[Instances]:
        """Find the instances of concepts with examples. The score of an instance is its similarity to an example.

        Args and result are those of `ConceptFinder.find`. The examples may be in another image.
        """
        described = []
        for concept in concepts:
            examples_image = concept.examples_image or image
            labels = torch.from_numpy(concept.labels)
            described.append((self._describe_boxes(segmenter, examples_image.embedding, concept.boxes, call), labels))
        examples = torch.cat([vectors[labels == 1] for vectors, labels in described])
        candidates = self._candidates(segmenter, image.embedding, examples, thresholds, call)
        return [_select(candidates, vectors, labels, thresholds.similarity) for vectors, labels in described]

    def _describe_boxes(self, segmenter: Segmenter, embedding: Embedding, boxes: np.ndarray, call: Call) -> Tensor:
        """Segment the object in each box, and return (n, channels) unit vectors that describe the objects."""
        prompts = [Prompt(box=box) for box in boxes]
        with call.stage("prompt", len(prompts)):
            segmentations = segmenter.segment(embedding, prompts, multimask_output=False, call=call)
        logits = torch.cat([segmentation.logits for segmentation in segmentations])
        return self._describe(embedding, self._inside(logits, embedding.size))

    def _inside(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (n, h, w) bool masks, which are empty in the padding of the model's input."""
        scale_x, scale_y = self._family.scale(size)
        height, width = (side / self._family.input_size for side in self._family.low_res_size)
        inside = logits > 0
        inside[:, math.ceil(size[0] * scale_y * height) :] = False
        inside[:, :, math.ceil(size[1] * scale_x * width) :] = False
        return inside

    def _describe(self, embedding: Embedding, inside: Tensor) -> Tensor:
        """Return the direction of the mean feature under each (h, w) mask: (n, channels) float32 unit vectors."""
        cells = _cells(embedding, inside.device)
        weights = [F.interpolate(mask.float()[None, None], cells.shape[1:], mode="area")[0, 0] for mask in inside]
        if not weights:
            return cells.new_zeros(0, len(cells))
        return F.normalize(torch.einsum("nhw,chw->nc", torch.stack(weights), cells), dim=1)

    def _candidates(
        self, segmenter: Segmenter, embedding: Embedding, examples: Tensor, thresholds: Thresholds, call: Call
    ) -> Candidates:
        """Segment the objects at the grid points that resemble an example."""
        cells = F.normalize(_cells(embedding, examples.device), dim=0)
        similarity = torch.einsum("nc,chw->nhw", examples, cells).amax(0).cpu().numpy()
        last_cell = np.array(similarity.shape[::-1]) - 1
        scale = np.array(self._family.scale(embedding.size)) * (last_cell + 1) / self._family.input_size

        def resembles(points: np.ndarray) -> np.ndarray:
            columns, rows = np.minimum(points * scale, last_cell).astype(int).T
            near: np.ndarray = similarity[rows, columns] >= thresholds.similarity - POINT_MARGIN
            return near

        grid = replace(
            CANDIDATES, points_per_side=thresholds.points_per_side, points_per_batch=thresholds.points_per_batch
        )
        objects = everything(segmenter, embedding, _no_crop, grid, call=call, select_points=resembles)
        stacked = [obj.logits for obj in objects if obj.logits is not None]
        logits = torch.stack(stacked) if stacked else cells.new_zeros(0, *self._family.low_res_size)
        inside = self._inside(logits, embedding.size)
        boxes = np.array([obj.box for obj in objects], np.float32).reshape(-1, 4) + np.array([0, 0, 1, 1], np.float32)
        return Candidates(boxes, logits, inside, self._describe(embedding, inside))


def _no_crop(box: Box) -> Embedding:
    raise AssertionError("the grid of CANDIDATES has no crops")


def _cells(embedding: Embedding, device: torch.device) -> Tensor:
    """Return the (channels, height, width) feature map with the lowest resolution."""
    return embedding.features[-1][0].to(device).float()


def _select(candidates: Candidates, vectors: Tensor, labels: Tensor, min_similarity: float) -> Instances:
    """Return the candidates near an example, without duplicates, in descending order of similarity."""
    similarity = candidates.vectors @ vectors.T
    positive = labels.to(similarity.device) == 1
    scores = similarity[:, positive].amax(1)
    near = scores >= min_similarity
    if not positive.all():
        near &= scores > similarity[:, ~positive].amax(1)
    distinct = distinct_masks(candidates.inside, near.nonzero()[:, 0].tolist(), MAX_OVERLAP, of_smaller=True)
    order = sorted(distinct, key=lambda i: -float(scores[i]))
    boxes = torch.from_numpy(candidates.boxes)[order]
    return Instances(candidates.logits[order], boxes, scores[order].clamp(0, 1).cpu())
