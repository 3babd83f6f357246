"""Masks as results of Label Studio: brush run lengths, or polygons in percent."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from sam_endpoint.model.call import Call
from sam_endpoint.model.masks import CroppedMask, to_polygons
from sam_endpoint.scoring.batch.labels import brush
from sam_endpoint.scoring.online.dialects.label_studio.config import Control
from sam_endpoint.scoring.polygons import simplify_outline

PERCENT = 100.0
TOLERANCE = 0.0005  # of a polygon, as a share of its length
BRUSH_BYTES = 4  # of a run length as text
ID_LENGTH = 10


def results(
    mask: np.ndarray | CroppedMask, score: float, control: Control, label: str | None, call: Call
) -> list[dict[str, Any]]:
    """Return the results that stand for a mask: one brush mask, or a polygon for each piece.

    Args:
        mask: (height, width) mask at the image's size.
        score: predicted IoU, which may be above 1; the results have at most 1.
        control: the tag that the results belong to.
        label: label of the object, or None.
        call: counts the answer.
    """
    whole = mask.whole() if isinstance(mask, CroppedMask) else mask
    height, width = whole.shape
    if control.type == "brushlabels":
        run_lengths = list(brush(whole))
        call.count_answer(BRUSH_BYTES * len(run_lengths))
        values: list[dict[str, Any]] = [{"format": "rle", "rle": run_lengths}]
    else:
        values = [{"points": points, "closed": True} for points in _outlines(whole)]
    labels = {control.type: [label] if label is not None else []}
    return [
        {
            "id": uuid.uuid4().hex[:ID_LENGTH],
            "from_name": control.name,
            "to_name": control.to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "type": control.type,
            "value": {**value, **labels},
            "score": min(1.0, max(0.0, score)),
            "readonly": False,
        }
        for value in values
    ]


def _outlines(mask: np.ndarray) -> list[list[list[float]]]:
    """Return the outlines of a mask as lists of x,y in percent of the image."""
    height, width = mask.shape
    pieces = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in to_polygons(mask)]
    simple = [simplify_outline(piece, TOLERANCE) for piece in pieces]
    return [(piece * (PERCENT / width, PERCENT / height)).tolist() for piece in simple]
