"""Aggregate the results of objects: means by size, calibration of predicted scores, differences between two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from sam_endpoint.evaluation.geometry import Mask, iou
from sam_endpoint.evaluation.ground_truth import SIZES
from sam_endpoint.evaluation.protocol import PROMPTS, ObjectResult
from sam_endpoint.model import masks

SCORED = ("box", "1 click", "3 clicks", "5 clicks")  # prompts whose predicted scores are evaluated
BINS = 10  # of predicted scores, for the calibration


def object_row(result: ObjectResult) -> dict[str, float]:
    """Convert the results of an object to a row of a table.

    Args:
        result: The results of the object.

    Returns:
        The cells by column:

        - For each prompt in PROMPTS, the IoU (`box`), the boundary F-measure (`box boundary`) and the predicted IoU
          (`box score`).
        - `score error`, the mean of |predicted IoU - IoU| over the prompts in SCORED.
        - For each mask encoding, the length of the encoded mask (`png characters`), and the IoU of the decoded mask
          with the original mask (`png kept`). The original mask is the prediction for the box.
    """
    cells: dict[str, float] = {}
    for prompt in PROMPTS:
        quality = result.qualities[prompt]
        cells |= {prompt: quality.iou, f"{prompt} boundary": quality.boundary_f, f"{prompt} score": quality.score}
    errors = [abs(result.qualities[prompt].score - result.qualities[prompt].iou) for prompt in SCORED]
    return {**cells, "score error": float(np.mean(errors)), **_encoding_cells(masks.from_rle(result.rle))}


def _encoding_cells(mask: Mask) -> dict[str, float]:
    """Return the columns `png kept`, `png characters` and so on of `object_row`."""
    size = (mask.shape[0], mask.shape[1])
    cells = {}
    for encoding in masks.ENCODINGS:
        text = masks.encode(mask, encoding)["encoded_binary_mask"]
        cells[f"{encoding} kept"] = iou(masks.decode(text, encoding, size), mask)
        cells[f"{encoding} characters"] = float(len(text))
    return cells


def encoding_table(objects: pd.DataFrame) -> pd.DataFrame:
    """Summarise how exact each mask encoding is and how long its texts are, for the masks predicted from boxes.

    Args:
        objects: The rows of `object_row`.

    Returns:
        A row for each encoding, with the columns `encoding`, `kept` (mean IoU of decoded and original mask),
        `least` (lowest such IoU) and `characters` (mean length of the text).
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
    """Yield the group `all` with all objects, then a group for each value in the column `size`."""
    yield "all", objects
    for size in SIZES:
        if (objects["size"] == size).any():
            yield size, objects[objects["size"] == size]


def summarize(objects: pd.DataFrame) -> dict[str, Any]:
    """Compute the report of a model, for JSON.

    Args:
        objects: The rows of `object_row`, and a column `size`.

    Returns:
        `figures` (mean IoU by size and prompt), `boundary` (mean boundary F-measure by size and prompt), `calibration`
        and `encodings`. In `figures` and `boundary`, the entry `things` of each size is the number of objects.
    """
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
    """Compare predicted IoU with true IoU, in bins of the predicted IoU.

    The bins divide 0 to 1 into BINS intervals of equal width. Scores below 0 or above 1 are in the first or last bin.

    Args:
        objects: The rows of `object_row`.

    Returns:
        A row for each bin that is not empty, with the columns `from`, `to`, `answers` (number of masks), `score` (mean
        predicted IoU) and `iou` (mean true IoU).
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
    """Return the expected calibration error of predicted IoU.

    ECE = sum over bins of n_b / n * |mean predicted IoU - mean true IoU|, where n_b of the n masks are in bin b. The
    definition is from Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015. There
    the bins compare confidence with accuracy; here they compare predicted IoU with true IoU.

    Args:
        bins: A table from `calibration_table`.

    Returns:
        The error, 0 for perfect calibration.

    Example:
        >>> bins = pd.DataFrame({"answers": [3, 1], "score": [0.9, 0.5], "iou": [0.8, 0.7]})
        >>> round(expected_calibration_error(bins), 3)
        0.125
    """
    return float(np.average((bins["score"] - bins["iou"]).abs(), weights=bins["answers"]))


def difference_table(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two models on the same objects.

    Args:
        first: The objects' rows of the first model.
        second: The objects' rows of the second model, in the same order.

    Returns:
        A row for each group of objects and each metric, with the columns `group` (all or a size), `things` (number of
        objects), `figure` (name of the metric, such as `box` for the IoU or `box boundary`), `first` and `second` (the
        mean of each model), `difference` (second - first) and `spread` (standard error of the difference, from the
        differences of the single objects).
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
    """Return the metrics that `difference_table` leaves out.

    These are the calibration error, `kept` of each encoding, and COCO's average precision.

    Args:
        first: The report of the first model.
        second: The report of the second model.

    Returns:
        For each metric its value in both reports.
    """
    error = "expected error"
    pairs = {error: (first["calibration"][error], second["calibration"][error])}
    for a, b in zip(first["encodings"], second["encodings"], strict=True):
        pairs[f"{a['encoding']} kept"] = (a["kept"], b["kept"])
    for name, value in first.get("average precision", {}).items():
        pairs[name] = (value, second["average precision"][name])
    return pairs


def _mean(column: pd.Series) -> float:
    return round(float(column.mean()), 4)
