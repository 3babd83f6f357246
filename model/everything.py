"""Everything in an image, found by asking about a grid of points.

The algorithm is SamAutomaticMaskGenerator's of the original segment-anything (Kirillov et al. 2023, appendix B),
its parameters by the same names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from model import masks
from model.prompts import Prompt
from model.segmenter import Embedding, Segmenter

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels
EDGE = 20.0  # pixels; a mask this close to a crop's edge is probably cut off by it


@dataclass(frozen=True)
class Grid:
    """Where to ask, and which answers to believe.

    points_per_side: points along each side of the image.
    points_per_batch: points decoded at once.
    pred_iou_thresh: least predicted IoU; 0 takes any.
    stability_score_thresh: least stability score, the IoU of the masks that the logits give when they are cut
        `stability_score_offset` above and below 0.
    box_nms_thresh: of two masks from one crop whose boxes have a larger IoU, the one with the lower score goes.
    crop_n_layers: besides the whole image, layer i asks again in 4^i overlapping crops.
    crop_nms_thresh: as box_nms_thresh, between crops; the mask from the smaller crop stays.
    crop_overlap_ratio: overlap of neighbouring crops, as a share of the image's shorter side, halved each layer.
    crop_n_points_downscale_factor: points along a side are divided by it each layer.
    min_mask_region_area: holes and separate pieces of fewer pixels are filled and removed; 0 leaves masks as they are.
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


@dataclass(frozen=True)
class Found:
    """One object: its mask as COCO's compressed run lengths of the whole image, its predicted IoU and stability score,
    the point (x, y) that found it, in which crop, and the low-resolution logits (h, w), None from within a crop, whose
    logits mean nothing for the whole image."""

    rle: dict[str, Any]
    score: float
    stability: float
    point: tuple[float, float]
    crop: Box
    box: np.ndarray
    logits: Tensor | None


def everything(
    segmenter: Segmenter,
    whole: Embedding,
    crop: Callable[[Box], Embedding],
    grid: Grid = Grid(),
    keep_logits: bool = True,
) -> list[Found]:
    """Every object in an image, the best predicted IoU first.

    whole: the image's embedding; crop: makes the embedding of a part of it, and is called only for `crop_n_layers`
    above 0; keep_logits: whether each object keeps its logits, which are most of what is held.
    """
    found: list[Found] = []
    for layer, box in crops(whole.size, grid):
        embedding = crop(box) if layer else whole
        side = max(1, grid.points_per_side // grid.crop_n_points_downscale_factor**layer)
        asked = points(side, embedding.size)
        inside = list(_in_crop(segmenter, embedding, box, whole.size, asked, grid, keep_logits))
        keep = nms(_boxes(inside), np.array([one.score for one in inside]), grid.box_nms_thresh)
        found += [inside[i] for i in keep]
    if grid.crop_n_layers:
        sizes = np.array([(one.crop[2] - one.crop[0]) * (one.crop[3] - one.crop[1]) for one in found])
        found = [found[i] for i in nms(_boxes(found), 1 / np.maximum(sizes, 1), grid.crop_nms_thresh)]
    if grid.min_mask_region_area:
        found = _without_small_regions(found, grid)
    return sorted(found, key=lambda one: -one.score)


def points(side: int, size: tuple[int, int]) -> np.ndarray:
    """The centres of side x side equal cells of an (h, w) image, row by row: (side * side, 2) float32 x,y in pixels."""
    line = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(line * size[1], line * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def crops(size: tuple[int, int], grid: Grid) -> Iterator[tuple[int, Box]]:
    """The layer and box of each crop of an (h, w) image, the whole image first, as layer 0."""
    height, width = size
    yield 0, (0, 0, width, height)
    for layer in range(1, grid.crop_n_layers + 1):
        count = 2**layer
        overlap = int(grid.crop_overlap_ratio * min(size) * (2 / count))
        crop_w, crop_h = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        for x in ((crop_w - overlap) * i for i in range(count)):
            for y in ((crop_h - overlap) * i for i in range(count)):
                box = (x, y, min(x + crop_w, width), min(y + crop_h, height))
                if box[0] < box[2] and box[1] < box[3]:  # an image of a few pixels has no room for that many
                    yield layer, box


def _in_crop(
    segmenter: Segmenter,
    embedding: Embedding,
    crop: Box,
    size: tuple[int, int],
    asked: np.ndarray,
    grid: Grid,
    keep_logits: bool,
) -> Iterator[Found]:
    """What passes the filters of one crop, in the order of the points (n, 2) asked about, in the crop's pixels.

    Masks become run lengths one by one, so that no more than one is ever held.
    """
    one_object = np.ones(1, dtype=np.int64)
    least = grid.pred_iou_thresh or -math.inf
    height, width = size
    keep_logits = keep_logits and crop == (0, 0, width, height)
    for start in range(0, len(asked), grid.points_per_batch):
        batch = asked[start : start + grid.points_per_batch]
        prompts = [Prompt(points=point[None], labels=one_object) for point in batch]
        answers = segmenter.segment(embedding, prompts, least=least)
        for point, answer in zip(batch, answers, strict=True):
            for i in np.flatnonzero(answer.scores > least):
                mask, stability = segmenter.stable_mask(answer.logits[i], answer.size, grid.stability_score_offset)
                if stability < grid.stability_score_thresh:
                    continue
                box = extent(mask.inside) + np.array([crop[0] + mask.left, crop[1] + mask.top] * 2)
                if _cut_off(box, crop, size):
                    continue
                yield Found(
                    rle=masks.to_rle(mask.within(crop[1], crop[0], size)),
                    score=float(answer.scores[i]),
                    stability=stability,
                    point=(float(point[0]) + crop[0], float(point[1]) + crop[1]),
                    crop=crop,
                    box=box,
                    logits=answer.logits[i].clone() if keep_logits else None,
                )


def extent(mask: np.ndarray) -> np.ndarray:
    """First and last column and row of a (h, w) bool mask, as (4,) x1, y1, x2, y2; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, dtype=np.int64)
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def _cut_off(box: np.ndarray, crop: Box, size: tuple[int, int]) -> bool:
    """Whether a mask ends near an edge of its crop that is no edge of the (h, w) image."""
    near_crop = np.abs(box - np.array(crop)) <= EDGE
    near_image = np.abs(box - np.array([0, 0, size[1], size[0]])) <= EDGE
    return bool((near_crop & ~near_image).any())


def _boxes(found: list[Found]) -> np.ndarray:
    return np.stack([one.box for one in found]) if found else np.zeros((0, 4), dtype=np.int64)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Non-maximum suppression: positions of the boxes (n, 4) x1, y1, x2, y2 that stay, the best score (n,) first.

    A box goes when its IoU with a better one that stays is above `threshold`; of equal scores the first counts as
    better. The same as torchvision's, which cannot be had beside every build of torch; a row at a time, so that
    memory grows with the number of boxes and not with its square.
    """
    left = torch.from_numpy(np.argsort(-scores, kind="stable"))
    edges = torch.from_numpy(np.asarray(boxes, dtype=np.float32))
    areas = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = torch.maximum(edges[best, :2], edges[left, :2])
        high = torch.minimum(edges[best, 2:], edges[left, 2:])
        both = (high - low).clamp(min=0).prod(1)
        left = left[~(both / (areas[best] + areas[left] - both) > threshold)]
    return kept


def _without_small_regions(found: list[Found], grid: Grid) -> list[Found]:
    """Holes filled and separate pieces removed; where that makes masks alike, those that had none are preferred."""
    cleaned, untouched = [], []
    for one in found:
        mask = masks.from_rle(one.rle)
        filled, had_holes = without_regions(mask, grid.min_mask_region_area, holes=True)
        whole, had_pieces = without_regions(filled, grid.min_mask_region_area, holes=False)
        changed = had_holes or had_pieces
        cleaned.append(replace(one, rle=masks.to_rle(whole), box=extent(whole)) if changed else one)
        untouched.append(0.0 if changed else 1.0)
    keep = nms(_boxes(cleaned), np.array(untouched), max(grid.box_nms_thresh, grid.crop_nms_thresh))
    return [cleaned[i] for i in keep]


def without_regions(mask: np.ndarray, area: int, holes: bool) -> tuple[np.ndarray, bool]:
    """A (h, w) bool mask with its holes, or its pieces, of fewer than `area` pixels gone, and whether there were any.

    Pixels that touch at a corner hang together. Of pieces that are all too small the largest stays.
    """
    regions, count = ndimage.label(~mask if holes else mask, structure=np.ones((3, 3), dtype=int))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < area) + 1
    if not len(small):
        return mask, False
    if holes:
        return mask | np.isin(regions, small), True
    large = np.flatnonzero(sizes >= area) + 1
    return np.isin(regions, large if len(large) else [sizes.argmax() + 1]), True
