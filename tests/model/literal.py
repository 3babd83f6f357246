"""Automatic mask generation read literally, step by step, slowly: plain transformers and numpy, every mask at the
image's size, nothing shared with the code under test."""

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

from tests.model.encodings import remembered

# An image (h, w, 3) and points (n, 2) in its pixels to logits (n, 3, h, w) and scores (n, 3).
Ask = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def ask_sam(folder: Path) -> Ask:
    processor = SamProcessor.from_pretrained(folder)
    model = remembered(SamModel.from_pretrained(folder))

    def ask(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nested = [[[[float(x), float(y)]] for x, y in points]]
        inputs = processor(Image.fromarray(image), input_points=nested, return_tensors="pt")
        with torch.no_grad():
            out = model(pixel_values=inputs["pixel_values"], input_points=inputs["input_points"].float())
        logits = processor.post_process_masks(
            out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
        )[0]
        return logits.numpy(), out.iou_scores[0].numpy()

    return ask


def ask_sam2(folder: Path) -> Ask:
    model = remembered(Sam2Model.from_pretrained(folder))
    side = model.config.prompt_encoder_config.image_size
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def ask(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        scaled = torch.from_numpy(points * [side / width, side / height]).float()[None, :, None]
        with torch.no_grad():
            out = model((pixels / 255 - mean) / std, input_points=scaled)
            logits = F.interpolate(out.pred_masks[0], (height, width), mode="bilinear", align_corners=False)
        return logits.numpy(), out.iou_scores[0].numpy()

    return ask


ASKS = {"sam": ask_sam, "sam2": ask_sam2}


@dataclass
class Literal:
    """One mask (h, w) bool of the whole image with what the filters look at."""

    mask: np.ndarray
    score: float
    stability: float
    point: tuple[float, float]
    crop: tuple[int, int, int, int]
    box: tuple[float, float, float, float]


def generate(ask: Ask, image: np.ndarray, **given: Any) -> list[Literal]:
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
    } | given
    height, width = image.shape[:2]
    everything: list[Literal] = []
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
        candidates: list[Literal] = []
        # A row of points at a time, whose logits stay in the cache.
        logits, scores = map(np.concatenate, zip(*[ask(part, row) for row in np.split(points, per_side)], strict=True))
        for p, point in enumerate(points):
            for m in range(3):
                found = logits[p, m]
                if settings["pred_iou_thresh"] > 0 and not scores[p, m] > settings["pred_iou_thresh"]:
                    continue
                high = (found > settings["stability_score_offset"]).sum()
                low = (found > -settings["stability_score_offset"]).sum()
                stability = high / low if low else 0.0
                if settings["stability_score_thresh"] > 0 and not stability >= settings["stability_score_thresh"]:
                    continue
                box = box_of(found > 0)
                box = (box[0] + x0, box[1] + y0, box[2] + x0, box[3] + y0)
                near = [
                    abs(side - edge) <= 20 and not abs(side - border) <= 20
                    for side, edge, border in zip(box, crop, (0, 0, width, height), strict=True)
                ]
                if any(near):
                    continue
                whole = np.zeros((height, width), dtype=bool)
                whole[y0:y1, x0:x1] = found > 0
                candidates.append(
                    Literal(whole, float(scores[p, m]), float(stability), (point[0] + x0, point[1] + y0), crop, box)
                )
        everything += suppress(candidates, [one.score for one in candidates], settings["box_nms_thresh"])
    if len(boxes_of_crops) > 1:
        small_first = [1 / ((one.crop[2] - one.crop[0]) * (one.crop[3] - one.crop[1])) for one in everything]
        everything = suppress(everything, small_first, settings["crop_nms_thresh"])
    if settings["min_mask_region_area"]:
        cleaned, clean = [], []
        for one in everything:
            mask, holes = flooded(one.mask, settings["min_mask_region_area"], holes=True)
            mask, pieces = flooded(mask, settings["min_mask_region_area"], holes=False)
            values = {field.name: getattr(one, field.name) for field in fields(one)}
            cleaned.append(Literal(**{**values, "mask": mask, "box": box_of(mask)}))
            clean.append(0.0 if holes or pieces else 1.0)
        everything = suppress(cleaned, clean, max(settings["box_nms_thresh"], settings["crop_nms_thresh"]))
    return sorted(everything, key=lambda one: one.score, reverse=True)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(mask)
    return (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max())) if len(xs) else (0.0, 0.0, 0.0, 0.0)


def suppress(candidates: list[Literal], scores: list[float], threshold: float) -> list[Literal]:
    order = sorted(range(len(candidates)), key=lambda i: -scores[i])
    return [candidates[i] for i in brute_force_nms([candidates[i].box for i in order], threshold, order)]


def brute_force_nms(boxes: list[tuple[float, ...]], threshold: float, names: list[int]) -> list[int]:
    """Of boxes in falling order of score, the names of those that no kept better one overlaps too much."""
    kept: list[int] = []
    for i, box in enumerate(boxes):
        for j in kept:
            other = boxes[j]
            wide = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
            tall = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
            areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
            if areas - wide * tall > 0 and wide * tall / (areas - wide * tall) > threshold:
                break
        else:
            kept.append(i)
    return [names[i] for i in kept]


def flooded(mask: np.ndarray, area: int, holes: bool) -> tuple[np.ndarray, bool]:
    """Pieces (or holes) of fewer than `area` pixels gone, found by flooding pixel by pixel over eight neighbours."""
    padded = np.pad(~mask if holes else mask, 1)
    row, dry = padded.shape[1], bytearray(padded.tobytes())
    around = (-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1)
    regions: list[list[int]] = []
    while (start := dry.find(1)) >= 0:
        dry[start] = 0
        region = [start]
        for place in region:  # it grows meanwhile
            for step in around:
                if dry[place + step]:
                    dry[place + step] = 0
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
