"""Automatic mask generation: segment every object in an image with a grid of point prompts.

Algorithm and parameter names are those of the original `SamAutomaticMaskGenerator` (Kirillov et al. 2023, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from . import masks
from .boxes import extent, nms
from .call import UNTRACKED, Call
from .prompts import Prompt
from .regions import remove_small_regions
from .segmenter import Embedding, Segmenter

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels
MAX_POINTS = 2**17  # maximum number of grid points for one image; a model takes minutes to hours for this number
EDGE = 20.0  # pixels; if a mask ends this close to the edge of a crop, the crop probably truncates the mask


@dataclass(frozen=True)
class Grid:
    """The point grid and the mask filters of automatic mask generation.

    Attributes:
        points_per_side: number of points along each side of the image.
        points_per_batch: maximum number of points decoded together.
        pred_iou_thresh: minimum predicted IoU; 0 accepts every mask.
        stability_score_thresh: minimum stability score. The stability score is the IoU of two masks. One mask has the
            pixels with logits above `stability_score_offset`, the other the pixels with logits above
            `-stability_score_offset`.
        stability_score_offset: see `stability_score_thresh`.
        box_nms_thresh: maximum IoU of the boxes of two masks from the same crop. Above it, the mask with the lower
            score is removed.
        crop_n_layers: number of crop layers in addition to the whole image. Layer i divides the image into 4^i
            overlapping crops and prompts each crop with a grid.
        crop_nms_thresh: like `box_nms_thresh`, for masks from different crops. The mask from the smaller crop is kept.
        crop_overlap_ratio: overlap of neighbouring crops in layer 1, as a share of the image's shorter side. Each
            further layer halves the overlap.
        crop_n_points_downscale_factor: a crop of layer i has max(1, points_per_side // this factor**i) points a side.
        min_mask_region_area: in pixels. Smaller holes are filled, smaller separate pieces are removed; 0 does nothing.

    Example:
        >>> Grid(points_per_side=16, crop_n_layers=1).count
        1280
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
        """Total number of points in all crops."""
        sides = [2**layer * self.side(layer) for layer in range(self.crop_n_layers + 1)]
        return sum(side * side for side in sides)

    def side(self, layer: int) -> int:
        """Return the number of points along each side of a crop in layer `layer`; layer 0 is the whole image."""
        factor: int = self.crop_n_points_downscale_factor**layer
        return max(1, self.points_per_side // factor)


DEFAULT_GRID = Grid()


@dataclass(frozen=True)
class FoundObject:
    """One object in an image.

    Attributes:
        rle: the mask in the coordinates of the whole image, as COCO compressed run lengths.
        score: the predicted IoU.
        stability: the stability score.
        point: the grid point (x, y) that prompted the mask, in pixels of the image.
        crop: the crop in which the mask was found.
        box: (4,) int64 x1, y1, x2, y2: first column, first row, last column and last row of the mask in the image.
        candidate: index of the mask among the three masks of the prompt, 0 to 2.
        logits: (h, w) float32 low-resolution logits, or None. Always None for objects from a crop, because their logits
            do not cover the whole image.
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
    select_points: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[FoundObject]:
    """Segment every object in an image.

    Args:
        segmenter: decodes the points of the grid.
        whole: the embedding of the image.
        crop: returns the embedding of a part of the image; called only if `grid.crop_n_layers` is above 0.
        grid: point grid and mask filters.
        keep_logits: whether to return the low-resolution logits of each object. The logits of all candidates could fill
            the memory. The function therefore drops them, and decodes the points of the kept objects a second time.
        call: context of the request. It is checked between batches of points, and counts the bytes of the masks.
        select_points: takes (n, 2) grid points x, y in pixels of a crop; returns (n,) bool, True for points to use.

    Returns:
        The objects in descending order of predicted IoU.

    Raises:
        BadRequest: the masks take more bytes than the call allows.
        Overloaded: there is too little memory at the moment.
        DeadlineExceeded, ClientDisconnected: the request must stop (see `Call.check`).
    """
    objects: list[FoundObject] = []
    for layer, box in crop_boxes(whole.size, grid):
        embedding = crop(box) if layer else whole
        grid_points = point_grid(grid.side(layer), embedding.size)
        if select_points is not None:
            grid_points = grid_points[select_points(grid_points)]
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


def point_grid(side: int, size: tuple[int, int]) -> np.ndarray:
    """Divide an image into side x side equal cells and return their centres.

    Args:
        side: number of cells along each side.
        size: (height, width) of the image in pixels.

    Returns:
        (side * side, 2) float32 x, y in pixels, row by row.

    Example:
        >>> point_grid(2, (40, 80)).tolist()
        [[20.0, 10.0], [60.0, 10.0], [20.0, 30.0], [60.0, 30.0]]
    """
    line = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(line * size[1], line * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def crop_boxes(size: tuple[int, int], grid: Grid) -> Iterator[tuple[int, Box]]:
    """Yield the layer and the box of each crop. The first crop is layer 0, the whole image.

    Args:
        size: (height, width) of the image in pixels.
        grid: `crop_n_layers` and `crop_overlap_ratio` are used.
    """
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
    """Yield the objects of one crop that pass the filters, in the order of the points.

    On a CPU, each mask is run-length encoded before the next is upscaled, so only one full mask is in memory.

    Args:
        segmenter: decodes the points.
        embedding: the embedding of the crop.
        crop: the box of the crop.
        size: (height, width) of the whole image in pixels.
        grid_points: (n, 2) float32 x, y in pixels of the crop.
        grid: mask filters.
        call: deadline, cancellation and memory budget of the request.
    """
    foreground = np.ones(1, dtype=np.int64)
    min_score = grid.pred_iou_thresh or -math.inf
    for piece in call.pieces(len(grid_points), grid.points_per_batch):
        batch = grid_points[piece]
        prompts = [Prompt(points=point[None], labels=foreground) for point in batch]
        with call.stage("prompt", len(prompts)):
            segmentations = segmenter.segment(embedding, prompts, min_score=min_score, call=call)
        chosen = [(n, i) for n, own in enumerate(segmentations) for i in np.flatnonzero(own.scores > min_score)]
        logits = [segmentations[n].logits[i] for n, i in chosen]
        found = segmenter.stable_masks(logits, embedding.size, grid.stability_score_offset)
        for n, i in chosen:
            with call.stage("mask"):
                mask, stability = next(found)
                if stability < grid.stability_score_thresh:
                    continue
                box = mask.box() + np.array([crop[0], crop[1]] * 2)
                if _cut_off(box, crop, size):
                    continue
                rle = masks.to_rle(mask.within(crop[1], crop[0], size))
            call.count_answer(len(rle["counts"]))
            yield FoundObject(
                rle=rle,
                score=float(segmentations[n].scores[i]),
                stability=stability,
                point=(float(batch[n][0]) + crop[0], float(batch[n][1]) + crop[1]),
                crop=crop,
                box=box,
                candidate=int(i),
            )


def _with_logits(
    segmenter: Segmenter, whole: Embedding, objects: list[FoundObject], grid: Grid, call: Call
) -> list[FoundObject]:
    """Add low-resolution logits to the objects that were found in the whole image rather than in a crop."""
    height, width = whole.size
    foreground = np.ones(1, dtype=np.int64)
    places = [i for i, obj in enumerate(objects) if obj.crop == (0, 0, width, height)]
    for piece in call.pieces(len(places), grid.points_per_batch):
        prompts = [Prompt(np.array([objects[i].point], np.float32), foreground) for i in places[piece]]
        with call.stage("prompt", len(prompts)):
            segmentations = segmenter.segment(whole, prompts, call=call)
        for i, segmentation in zip(places[piece], segmentations, strict=True):
            logits = segmentation.logits[objects[i].candidate].clone()
            call.count_answer(2 * logits.numel())
            objects[i] = replace(objects[i], logits=logits)
    return objects


def _cut_off(box: np.ndarray, crop: Box, size: tuple[int, int]) -> bool:
    """Return whether the crop probably truncates a mask.

    A mask is probably truncated if it ends at most EDGE pixels from an edge of its crop, and more than EDGE pixels from
    the same edge of the image.

    Args:
        box: the box of the mask in the image, x1, y1, x2, y2.
        crop: the box of the crop.
        size: (height, width) of the image in pixels.
    """
    near_crop = np.abs(box - np.array(crop)) <= EDGE
    near_image = np.abs(box - np.array([0, 0, size[1], size[0]])) <= EDGE
    return bool((near_crop & ~near_image).any())


def _boxes(objects: list[FoundObject]) -> np.ndarray:
    """Return the (n, 4) boxes x1, y1, x2, y2 of all objects."""
    return np.stack([obj.box for obj in objects]) if objects else np.zeros((0, 4), dtype=np.int64)


def _without_small_regions(objects: list[FoundObject], grid: Grid, call: Call) -> list[FoundObject]:
    """Fill small holes, remove small pieces, and then remove masks that have become duplicates.

    If a changed mask and an unchanged mask are duplicates, the unchanged mask is kept.
    """
    cleaned, unchanged = [], []
    for obj in objects:
        with call.stage("mask"):
            mask = masks.from_rle(obj.rle)
            filled, had_holes = remove_small_regions(mask, grid.min_mask_region_area, holes=True)
            whole, had_pieces = remove_small_regions(filled, grid.min_mask_region_area, holes=False)
        changed = had_holes or had_pieces
        cleaned.append(replace(obj, rle=masks.to_rle(whole), box=extent(whole)) if changed else obj)
        unchanged.append(0.0 if changed else 1.0)
    keep = nms(_boxes(cleaned), np.array(unchanged), max(grid.box_nms_thresh, grid.crop_nms_thresh))
    return [cleaned[i] for i in keep]
