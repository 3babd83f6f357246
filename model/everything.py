"""Automatic mask generation: segment every object in an image by prompting with a grid of points.

The algorithm and the parameter names are those of `SamAutomaticMaskGenerator` in the original segment-anything
(Kirillov et al. 2023, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from . import masks
from .call import UNTRACKED, Call
from .prompts import Prompt
from .regions import without_regions
from .segmenter import Embedding, Segmenter

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels
MAX_POINTS = 2**17  # of the grids of one image: minutes with the smallest model, hours with the largest
EDGE = 20.0  # pixels; a mask this close to the edge of a crop is probably truncated by it


@dataclass(frozen=True)
class Grid:
    """Point grid and mask filters.

    Attributes:
        points_per_side: points along each side of the image.
        points_per_batch: largest number of points decoded at once.
        pred_iou_thresh: minimum predicted IoU; 0 accepts every mask.
        stability_score_thresh: minimum stability score: the IoU of the two masks that result from thresholding the
            logits at `stability_score_offset` above and below 0.
        stability_score_offset: see `stability_score_thresh`.
        box_nms_thresh: if the boxes of two masks from the same crop have a larger IoU, the mask with the lower score
            is removed.
        crop_n_layers: number of crop layers besides the whole image; layer i prompts again in 4^i overlapping crops.
        crop_nms_thresh: like `box_nms_thresh`, between crops; the mask from the smaller crop is preferred.
        crop_overlap_ratio: overlap of neighbouring crops as a share of the image's shorter side, halved each layer.
        crop_n_points_downscale_factor: each layer divides the number of points along a side by this factor.
        min_mask_region_area: fill holes and remove separate pieces of fewer pixels; 0 leaves masks unchanged.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0

    @property
    def count(self) -> int:
        """Number of points, in all crops."""
        sides = [2**layer * self.side(layer) for layer in range(self.crop_n_layers + 1)]
        return sum(side * side for side in sides)

    def side(self, layer: int) -> int:
        """Return the number of points along each side of a crop of a layer."""
        factor: int = self.crop_n_points_downscale_factor**layer
        return max(1, self.points_per_side // factor)


DEFAULT_GRID = Grid()


@dataclass(frozen=True)
class FoundObject:
    """One object in an image.

    Attributes:
        rle: mask in the coordinates of the whole image, as COCO compressed run lengths.
        score: predicted IoU.
        stability: stability score.
        point: the grid point (x, y) whose prompt produced the mask, in pixels of the image.
        crop: the crop that was prompted.
        box: (4,) first and last column and row of the mask: x1, y1, x2, y2.
        candidate: which of the three masks of the prompt it is.
        logits: (h, w) low-resolution logits, or None; None for objects found in a crop, whose logits do not cover the
            whole image.
    """

    rle: masks.RunLengths
    score: float
    stability: float
    point: tuple[float, float]
    crop: Box
    box: np.ndarray
    candidate: int
    logits: Tensor | None = None


def everything(
    segmenter: Segmenter,
    whole: Embedding,
    crop: Callable[[Box], Embedding],
    grid: Grid = DEFAULT_GRID,
    keep_logits: bool = True,
    call: Call = UNTRACKED,
) -> list[FoundObject]:
    """Segment every object in an image.

    Args:
        segmenter: decodes the points of the grid.
        whole: the image's embedding.
        crop: returns the embedding of a part of the image; called only if `crop_n_layers` is above 0.
        grid: point grid and mask filters.
        keep_logits: whether to return the low-resolution logits of each object. The points of the objects that pass the
            filters are decoded again for them, because the logits of all candidates could fill the memory.
        call: checked between batches of points; counts the bytes of the masks.

    Returns:
        The objects in descending order of predicted IoU.

    Raises:
        BadRequest: the masks take more bytes than the call's answer may.
    """
    objects: list[FoundObject] = []
    for layer, box in crops(whole.size, grid):
        embedding = crop(box) if layer else whole
        grid_points = points(grid.side(layer), embedding.size)
        candidates = list(_in_crop(segmenter, embedding, box, whole.size, grid_points, grid, call))
        keep = nms(_boxes(candidates), np.array([candidate.score for candidate in candidates]), grid.box_nms_thresh)
        objects += [candidates[i] for i in keep]
    if grid.crop_n_layers:
        sizes = np.array([(obj.crop[2] - obj.crop[0]) * (obj.crop[3] - obj.crop[1]) for obj in objects])
        objects = [objects[i] for i in nms(_boxes(objects), 1 / np.maximum(sizes, 1), grid.crop_nms_thresh)]
    if grid.min_mask_region_area:
        objects = _without_small_regions(objects, grid, call)
    objects = sorted(objects, key=lambda obj: -obj.score)
    return _with_logits(segmenter, whole, objects, grid, call) if keep_logits else objects


def points(side: int, size: tuple[int, int]) -> np.ndarray:
    """Return the centres of side x side equal cells of an (h, w) image.

    Returns:
        (side * side, 2) float32 x, y in pixels, row by row.
    """
    line = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(line * size[1], line * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def crops(size: tuple[int, int], grid: Grid) -> Iterator[tuple[int, Box]]:
    """Yield the layer and box of each crop of an (h, w) image. The first crop, layer 0, is the whole image."""
    height, width = size
    yield 0, (0, 0, width, height)
    for layer in range(1, grid.crop_n_layers + 1):
        count = 2**layer
        overlap = int(grid.crop_overlap_ratio * min(size) * (2 / count))
        crop_w, crop_h = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for x in ((crop_w - overlap) * i for i in range(count)):
            for y in ((crop_h - overlap) * i for i in range(count)):
                box = (x, y, min(x + crop_w, width), min(y + crop_h, height))
                if box[0] < box[2] and box[1] < box[3]:  # crops of very small images can be empty
                    yield layer, box


def _in_crop(
    segmenter: Segmenter,
    embedding: Embedding,
    crop: Box,
    size: tuple[int, int],
    grid_points: np.ndarray,
    grid: Grid,
    call: Call,
) -> Iterator[FoundObject]:
    """Yield the objects of one crop that pass the filters, in the order of `grid_points`.

    `grid_points` is (n, 2) in pixels of the crop; `size` is (h, w) of the whole image. Each mask is run-length encoded
    before the next one is upscaled, so that only one full mask is in memory at a time.
    """
    foreground = np.ones(1, dtype=np.int64)
    min_score = grid.pred_iou_thresh or -math.inf
    for piece in call.pieces(len(grid_points), grid.points_per_batch):
        batch = grid_points[piece]
        prompts = [Prompt(points=point[None], labels=foreground) for point in batch]
        with call.stage("prompt"):
            answers = segmenter.segment(embedding, prompts, min_score=min_score, call=call)
        for point, answer in zip(batch, answers, strict=True):
            for i in np.flatnonzero(answer.scores > min_score):
                with call.stage("mask"):
                    mask, stability = segmenter.stable_mask(answer.logits[i], answer.size, grid.stability_score_offset)
                    if stability < grid.stability_score_thresh:
                        continue
                    box = extent(mask.inside) + np.array([crop[0] + mask.left, crop[1] + mask.top] * 2)
                    if _cut_off(box, crop, size):
                        continue
                    rle = masks.to_rle(mask.within(crop[1], crop[0], size))
                call.count_answer(len(rle["counts"]))
                yield FoundObject(
                    rle=rle,
                    score=float(answer.scores[i]),
                    stability=stability,
                    point=(float(point[0]) + crop[0], float(point[1]) + crop[1]),
                    crop=crop,
                    box=box,
                    candidate=int(i),
                )


def _with_logits(
    segmenter: Segmenter, whole: Embedding, objects: list[FoundObject], grid: Grid, call: Call
) -> list[FoundObject]:
    """Return the objects with the logits of those that were found in the whole image."""
    height, width = whole.size
    foreground = np.ones(1, dtype=np.int64)
    places = [i for i, obj in enumerate(objects) if obj.crop == (0, 0, width, height)]
    for piece in call.pieces(len(places), grid.points_per_batch):
        prompts = [Prompt(np.array([objects[i].point], np.float32), foreground) for i in places[piece]]
        with call.stage("prompt"):
            answers = segmenter.segment(whole, prompts, call=call)
        for i, answer in zip(places[piece], answers, strict=True):
            logits = answer.logits[objects[i].candidate].clone()
            call.count_answer(2 * logits.numel())
            objects[i] = replace(objects[i], logits=logits)
    return objects


def extent(mask: np.ndarray) -> np.ndarray:
    """Return the first and last column and row of a (h, w) bool mask as (4,) x1, y1, x2, y2; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, dtype=np.int64)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def _cut_off(box: np.ndarray, crop: Box, size: tuple[int, int]) -> bool:
    """Return whether a mask ends near an edge of its crop that is not also an edge of the (h, w) image."""
    near_crop = np.abs(box - np.array(crop)) <= EDGE
    near_image = np.abs(box - np.array([0, 0, size[1], size[0]])) <= EDGE
    return bool((near_crop & ~near_image).any())


def _boxes(objects: list[FoundObject]) -> np.ndarray:
    """Return the boxes of all objects, (n, 4) x1, y1, x2, y2."""
    return np.stack([obj.box for obj in objects]) if objects else np.zeros((0, 4), dtype=np.int64)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Apply non-maximum suppression, with the same result as torchvision's `nms`.

    torchvision is not available for every build of torch. The IoUs are computed row by row, so memory is linear in the
    number of boxes.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,) scores; of equal scores the first takes precedence.
        threshold: a box is removed if its IoU with a retained box of a better score is above this threshold.

    Returns:
        Positions of the retained boxes in descending order of score.
    """
    remaining = torch.from_numpy(np.argsort(-scores, kind="stable"))
    edges = torch.from_numpy(np.asarray(boxes, dtype=np.float32))
    areas = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    keep = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        keep.append(int(best))
        low = torch.maximum(edges[best, :2], edges[remaining, :2])
        high = torch.minimum(edges[best, 2:], edges[remaining, 2:])
        intersection = (high - low).clamp(min=0).prod(1)
        remaining = remaining[~(intersection / (areas[best] + areas[remaining] - intersection) > threshold)]
    return keep


def _without_small_regions(objects: list[FoundObject], grid: Grid, call: Call) -> list[FoundObject]:
    """Fill small holes, remove small pieces, and suppress the duplicates that result.

    Of duplicates, masks that did not change are preferred.
    """
    cleaned, unchanged = [], []
    for obj in objects:
        with call.stage("mask"):
            mask = masks.from_rle(obj.rle)
            filled, had_holes = without_regions(mask, grid.min_mask_region_area, holes=True)
            whole, had_pieces = without_regions(filled, grid.min_mask_region_area, holes=False)
        changed = had_holes or had_pieces
        cleaned.append(replace(obj, rle=masks.to_rle(whole), box=extent(whole)) if changed else obj)
        unchanged.append(0.0 if changed else 1.0)
    keep = nms(_boxes(cleaned), np.array(unchanged), max(grid.box_nms_thresh, grid.crop_nms_thresh))
    return [cleaned[i] for i in keep]
