"""Metrics of many objects: means by size, calibration of predicted scores, differences between two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sam_endpoint.evaluation.geometry import Mask, iou
from sam_endpoint.evaluation.ground_truth import SIZES
from sam_endpoint.evaluation.protocol import PROMPTS, ObjectResult
from sam_endpoint.model import masks

SCORED = ("box", "1 click", "3 clicks", "5 clicks")  # the prompts whose predicted scores are evaluated
BINS = 10


def object_row(result: ObjectResult) -> dict[str, float]:
    """Return the metrics of one object as a row of a table.

    Columns: `box`, `box boundary`, `box score` and so on for each of PROMPTS; `score error`, the mean of |score - IoU|
    over SCORED; and the cost of each encoding for the mask from the box.
    """
    cells: dict[str, float] = {}
    for prompt in PROMPTS:
        quality = result.qualities[prompt]
        cells |= {prompt: quality.iou, f"{prompt} boundary": quality.boundary_f, f"{prompt} score": quality.score}
    errors = [abs(result.qualities[prompt].score - result.qualities[prompt].iou) for prompt in SCORED]
    return {**cells, "score error": float(np.mean(errors)), **_encoding_cells(masks.from_rle(result.rle))}


def _encoding_cells(mask: Mask) -> dict[str, float]:
    """Return `png kept`, the IoU of a mask with its encoded and decoded copy, `png characters`, and so on."""
    size = (mask.shape[0], mask.shape[1])
    cells = {}
    for encoding in masks.ENCODINGS:
        text = masks.encode(mask, encoding)["encoded_binary_mask"]
        cells[f"{encoding} kept"] = iou(masks.decode(text, encoding, size), mask)
        cells[f"{encoding} characters"] = float(len(text))
    return cells


def encoding_table(objects: pd.DataFrame) -> pd.DataFrame:
    """Return the cost of each mask encoding for the masks from boxes.

    Columns: `encoding`, `kept` (mean IoU of the decoded mask with the mask), `least` (the lowest IoU) and `characters`
    (mean length of the text).
    """
    return pd.DataFrame(
        {
            "encoding": encoding,
            "kept": float(objects[f"{encoding} kept"].mean()),
            "least": float(objects[f"{encoding} kept"].min()),
            "characters": round(float(objects[f"{encoding} characters"].mean())),
        }
        for encoding in masks.ENCODINGS
    )


def size_groups(objects: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all objects, then the objects of each size that occurs. `objects` has a column `size`."""
    yield "all", objects
    for size in SIZES:
        if (objects["size"] == size).any():
            yield size, objects[objects["size"] == size]


def summarize(objects: pd.DataFrame) -> dict[str, Any]:
    """Return the report of a table of objects, for JSON: IoU and boundary F by size, calibration, encodings."""
    figures, boundary = {}, {}
    for size, group in size_groups(objects):
        count = {"things": len(group)}
        figures[size] = {**count, **{name: _mean(group[name]) for name in (*PROMPTS, "score error")}}
        boundary[size] = {**count, **{name: _mean(group[f"{name} boundary"]) for name in PROMPTS}}
    bins = calibration_table(objects)
    calibration = {
        "mean absolute error": figures["all"]["score error"],
        "expected error": round(expected_calibration_error(bins), 4),
        "bins": bins.round(4).to_dict("records"),
    }
    encodings = encoding_table(objects).round(4).to_dict("records")
    return {"figures": figures, "boundary": boundary, "calibration": calibration, "encodings": encodings}


def calibration_table(objects: pd.DataFrame) -> pd.DataFrame:
    """Return the predicted scores of SCORED in BINS bins of equal width from 0 to 1; outliers go to the outermost bins.

    Columns: `from`, `to`, `answers`, `score` (mean predicted IoU), `iou` (mean true IoU). Empty bins are left out.
    """
    scores = np.concatenate([objects[f"{prompt} score"] for prompt in SCORED])
    ious = np.concatenate([objects[prompt] for prompt in SCORED])
    numbers = np.clip(np.floor(scores * BINS), 0, BINS - 1).astype(int)
    return pd.DataFrame(
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "answers": int((numbers == number).sum()),
            "score": float(scores[numbers == number].mean()),
            "iou": float(ious[numbers == number].mean()),
        }
        for number in np.unique(numbers)
    )


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return the mean, over answers, of |mean score - mean IoU| of their bin in a `calibration_table`.

    Naeini et al. (Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015), with IoU as the quantity
    that a score predicts.
    """
    return float(np.average((bins["score"] - bins["iou"]).abs(), weights=bins["answers"]))


def difference_table(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the second model's metrics minus the first's, on the same objects in the same order.

    Columns: `group`, `things`, `figure` (IoU by its prompt, boundary F as `box boundary`, `score error`), `first`,
    `second`, `difference`, and `spread`, the standard error of the difference over the objects.
    """
    rows = []
    names = (*PROMPTS, *(f"{prompt} boundary" for prompt in PROMPTS), "score error")
    for (size, a), (_, b) in zip(size_groups(first), size_groups(second), strict=True):
        for name in names:
            change = b[name] - a[name]
            spread = float(change.std() / np.sqrt(len(change))) if len(change) > 1 else float("nan")
            rows.append((size, len(a), name, a[name].mean(), b[name].mean(), change.mean(), spread))
    return pd.DataFrame(rows, columns=["group", "things", "figure", "first", "second", "difference", "spread"])


def scalar_pairs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the metrics of two reports that are not means over objects: calibration, encodings, COCO's AP."""
    error = "expected error"
    pairs = {error: (first["calibration"][error], second["calibration"][error])}
    for a, b in zip(first["encodings"], second["encodings"], strict=True):
        pairs[f"{a['encoding']} kept"] = (a["kept"], b["kept"])
    for name, value in first.get("average precision", {}).items():
        pairs[name] = (value, second["average precision"][name])
    return pairs


def _mean(column: pd.Series) -> float:
    return round(float(column.mean()), 4)
