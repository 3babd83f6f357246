"""A slow reference implementation of automatic mask generation, written step by step from the algorithm.

It uses only transformers and numpy, holds every mask at the size of the image, and shares no code with the project.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Sam2Model, SamModel, SamProcessor

from tests.model.encodings import cache_encoder

# A function from an image, (h, w, 3) uint8, and points in pixels, (n, 2), to logits, (n, 3, h, w), and scores, (n, 3).
Predictor = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def sam_predictor(folder: Path) -> Predictor:
    """Load a SAM with transformers, and return its predictor."""
    processor = SamProcessor.from_pretrained(folder)
    model = cache_encoder(SamModel.from_pretrained(folder))

    def predict(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nested = [[[[float(x), float(y)]] for x, y in points]]
        inputs = processor(Image.fromarray(image), input_points=nested, return_tensors="pt")
        with torch.no_grad():
            out = model(pixel_values=inputs["pixel_values"], input_points=inputs["input_points"].float())
        logits = processor.post_process_masks(
            out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
        )[0]
        return logits.numpy(), out.iou_scores[0].numpy()

    return predict


def sam2_predictor(folder: Path) -> Predictor:
    """Load a SAM 2 with transformers, and return its predictor."""
    model = cache_encoder(Sam2Model.from_pretrained(folder))
    side = model.config.prompt_encoder_config.image_size
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def predict(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        scaled = torch.from_numpy(points * [side / width, side / height]).float()[None, :, None]
        with torch.no_grad():
            out = model((pixels / 255 - mean) / std, input_points=scaled)
            logits = F.interpolate(out.pred_masks[0], (height, width), mode="bilinear", align_corners=False)
        return logits.numpy(), out.iou_scores[0].numpy()

    return predict


PREDICTORS = {"sam": sam_predictor, "sam2": sam2_predictor}


@dataclass
class ReferenceMask:
    """A mask of the whole image, (h, w) bool, and the values that the filters read."""

    mask: np.ndarray
    score: float
    stability: float
    point: tuple[float, float]
    crop: tuple[int, int, int, int]
    box: tuple[float, float, float, float]


def generate(predict: Predictor, image: np.ndarray, **options: Any) -> list[ReferenceMask]:
    """Return the masks of all objects in an image, the best score first.

    Args:
        predict: predictor of a model.
        image: image, (h, w, 3) uint8.
        **options: settings of the algorithm that differ from the defaults.
    """
    settings = {
        "points_per_side": 32,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.7,
        "crop_overlap_ratio": 512 / 1500,
        "crop_n_points_downscale_factor": 1,
        "min_mask_region_area": 0,
    } | options
    height, width = image.shape[:2]
    results: list[ReferenceMask] = []
    boxes_of_crops = [(0, (0, 0, width, height))]
    for layer in range(1, settings["crop_n_layers"] + 1):
        per_side = 2**layer
        overlap = int(settings["crop_overlap_ratio"] * min(height, width) * (2 / per_side))
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        for column in range(per_side):
            for row in range(per_side):
                x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
                corner = min(x0 + crop_width, width), min(y0 + crop_height, height)
                boxes_of_crops.append((layer, (x0, y0, *corner)))
    for layer, crop in boxes_of_crops:
        x0, y0, x1, y1 = crop
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        per_side = int(settings["points_per_side"] / settings["crop_n_points_downscale_factor"] ** layer)
        offset = 1 / (2 * per_side)
        line = np.linspace(offset, 1 - offset, per_side)
        points = np.array([[x, y] for y in line for x in line]) * [x1 - x0, y1 - y0]
        candidates: list[ReferenceMask] = []
        # One row of points at a time, because its logits fit into the processor's cache.
        logits, scores = map(
            np.concatenate, zip(*[predict(part, row) for row in np.split(points, per_side)], strict=True)
        )
        for p, point in enumerate(points):
            for m in range(3):
                mask_logits = logits[p, m]
                if settings["pred_iou_thresh"] > 0 and not scores[p, m] > settings["pred_iou_thresh"]:
                    continue
                high = (mask_logits > settings["stability_score_offset"]).sum()
                low = (mask_logits > -settings["stability_score_offset"]).sum()
                stability = high / low if low else 0.0
                if settings["stability_score_thresh"] > 0 and not stability >= settings["stability_score_thresh"]:
                    continue
                box = box_of(mask_logits > 0)
                box = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
                near = [
                    abs(side - edge) <= 20 and not abs(side - border) <= 20
                    for side, edge, border in zip(box, crop, (0, 0, width, height), strict=True)
                ]
                if any(near):
                    continue
                whole = np.zeros((height, width), dtype=bool)
                whole[y0:y1, x0:x1] = mask_logits > 0
                candidates.append(
                    ReferenceMask(
                        whole, float(scores[p, m]), float(stability), (point[0] + x0, point[1] + y0), crop, box
                    )
                )
        results += suppress(candidates, [candidate.score for candidate in candidates], settings["box_nms_thresh"])
    if len(boxes_of_crops) > 1:
        small_first = [
            1 / ((candidate.crop[2] - candidate.crop[0]) * (candidate.crop[3] - candidate.crop[1]))
            for candidate in results
        ]
        results = suppress(results, small_first, settings["crop_nms_thresh"])
    if settings["min_mask_region_area"]:
        cleaned, clean = [], []
        for candidate in results:
            mask, holes = remove_regions(candidate.mask, settings["min_mask_region_area"], holes=True)
            mask, pieces = remove_regions(mask, settings["min_mask_region_area"], holes=False)
            values = {field.name: getattr(candidate, field.name) for field in fields(candidate)}
            cleaned.append(ReferenceMask(**{**values, "mask": mask, "box": box_of(mask)}))
            clean.append(0.0 if holes or pieces else 1.0)
        results = suppress(cleaned, clean, max(settings["box_nms_thresh"], settings["crop_nms_thresh"]))
    return sorted(results, key=lambda candidate: candidate.score, reverse=True)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box of a mask as x1, y1, x2, y2, or zeros for an empty mask."""
    ys, xs = np.nonzero(mask)
    return (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())) if len(xs) else (0.0, 0.0, 0.0, 0.0)


def suppress(candidates: list[ReferenceMask], scores: list[float], threshold: float) -> list[ReferenceMask]:
    """Return the candidates that remain after non-maximum suppression of their boxes."""
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    return [candidates[i] for i in brute_force_nms([candidates[i].box for i in order], threshold, order)]


def brute_force_nms(boxes: list[tuple[float, ...]], threshold: float, names: list[int]) -> list[int]:
    """Do non-maximum suppression by comparing all pairs of boxes.

    Args:
        boxes: boxes as x1, y1, x2, y2, the highest score first.
        threshold: IoU above which a box suppresses a later one.
        names: an identifier for each box.

    Returns:
        The identifiers of the boxes that remain.
    """
    remaining: list[int] = []
    for i, box in enumerate(boxes):
        for j in remaining:
            better = boxes[j]
            wide = max(0.0, min(box[2], better[2]) - max(box[0], better[0]))
            tall = max(0.0, min(box[3], better[3]) - max(box[1], better[1]))
            areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, better))
            if areas - wide * tall > 0 and wide * tall / (areas - wide * tall) > threshold:
                break
        else:
            remaining.append(i)
    return [names[i] for i in remaining]


def remove_regions(mask: np.ndarray, area: int, holes: bool) -> tuple[np.ndarray, bool]:
    """Remove small regions from a mask. Finds regions pixel by pixel with a flood fill over eight neighbours.

    Args:
        mask: mask, (h, w) bool.
        area: number of pixels below which a region is removed.
        holes: fill holes in the mask, instead of removing pieces of it.

    Returns:
        The new mask, and whether it differs from `mask`.
    """
    padded = np.pad(~mask if holes else mask, 1)
    row, unvisited = padded.shape[1], bytearray(padded.tobytes())
    neighbours = (-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1)
    regions: list[list[int]] = []
    while (start := unvisited.find(1)) >= 0:
        unvisited[start] = 0
        region = [start]
        for place in region:  # the list grows during the loop
            for step in neighbours:
                if unvisited[place + step]:
                    unvisited[place + step] = 0
                    region.append(place + step)
        regions.append(region)
    small = [region for region in regions if len(region) < area]
    if not small:
        return mask, False
    if not holes and len(small) == len(regions):
        small.remove(max(regions, key=len))
    result = np.pad(mask, 1)
    for region in small:
        result.flat[region] = holes
    return result[1:-1, 1:-1], True
