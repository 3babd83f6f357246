"""Convert masks to results of Label Studio: brush run lengths, or polygons in percent."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from sam_endpoint.model.call import Call
from sam_endpoint.model.masks import CroppedMask
from sam_endpoint.scoring.brush import encode_brush
from sam_endpoint.scoring.online.dialects.best_masks import polygons
from sam_endpoint.scoring.online.dialects.label_studio.config import Control
from sam_endpoint.scoring.polygons import simplify_outline

PERCENT = 100.0
TOLERANCE = 0.0005  # tolerance of a simplified polygon, as a share of the polygon's length
RUN_BYTES = 4  # characters in the JSON text for one number of the run lengths
ID_LENGTH = 10


def results(
    mask: np.ndarray | CroppedMask, score: float, control: Control, label: str | None, call: Call
) -> list[dict[str, Any]]:
    """Return the results for a mask: one brush mask, or a polygon for each piece of the mask.

    Args:
        mask: mask at the image's size, (height, width) bool or a cropped mask.
        score: predicted IoU. A prediction above 1 becomes 1 in the results.
        control: the tag that the results belong to.
        label: label of the object, or None.
        call: times the work and counts the size of the response.

    Raises:
        BadRequest: the response is too large.
    """
    height, width = mask.size if isinstance(mask, CroppedMask) else mask.shape
    if control.type == "brushlabels":
        with call.stage("render"):
            run_lengths = list(encode_brush(mask.whole() if isinstance(mask, CroppedMask) else mask))
        call.count_answer(RUN_BYTES * len(run_lengths))
        values: list[dict[str, Any]] = [{"format": "rle", "rle": run_lengths}]
    else:
        outlines = [np.asarray(outline) for outline in polygons(mask, call)]
        with call.stage("render"):
            simple = [simplify_outline(outline, TOLERANCE) for outline in outlines]
        to_percent = (PERCENT / width, PERCENT / height)
        values = [{"points": (outline * to_percent).tolist(), "closed": True} for outline in simple]
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
