"""Figures of many objects: means by size, calibration of predicted scores, differences between two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from model import masks
from training.ground_truth import SIZES, Mask
from training.judge import PROMPTS, Judged, iou

SCORED = ("box", "1 click", "3 clicks", "5 clicks")
BINS = 10


def row(judged: Judged) -> dict[str, float]:
    """One object's figures as columns of a table: `box`, `box boundary`, `box score` and so on for each of PROMPTS, and
    `score error`, the mean of |score - IoU| over SCORED; and what each encoding costs the mask found from the box."""
    cells: dict[str, float] = {}
    for prompt in PROMPTS:
        figure = judged.figures[prompt]
        cells |= {prompt: figure.iou, f"{prompt} boundary": figure.boundary, f"{prompt} score": figure.score}
    errors = [abs(judged.figures[prompt].score - judged.figures[prompt].iou) for prompt in SCORED]
    return {**cells, "score error": float(np.mean(errors)), **_encoded(masks.from_rle(judged.rle))}


def _encoded(mask: Mask) -> dict[str, float]:
    """`png kept` and so on: the IoU of a mask with what its text in each encoding decodes to; `png characters`."""
    size = (mask.shape[0], mask.shape[1])
    cells = {}
    for encoding in masks.ENCODINGS:
        text = masks.encode(mask, encoding)["encoded_binary_mask"]
        cells[f"{encoding} kept"] = iou(masks.decode(text, encoding, size), mask)
        cells[f"{encoding} characters"] = float(len(text))
    return cells


def encodings(things: pd.DataFrame) -> pd.DataFrame:
    """What each mask encoding costs, by the masks found from boxes. Columns `encoding`, `kept` (mean IoU of the decoded
    mask with the mask itself), `least` (the lowest such) and `characters` (mean length of the text)."""
    return pd.DataFrame(
        {
            "encoding": encoding,
            "kept": float(things[f"{encoding} kept"].mean()),
            "least": float(things[f"{encoding} kept"].min()),
            "characters": round(float(things[f"{encoding} characters"].mean())),
        }
        for encoding in masks.ENCODINGS
    )


def groups(things: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """All objects, then those of each size that there is. `things`: a row each, with a column `size`."""
    yield "all", things
    for size in SIZES:
        if (things["size"] == size).any():
            yield size, things[things["size"] == size]


def report(things: pd.DataFrame) -> dict[str, Any]:
    """What JSON keeps of a table of objects: mean IoU (`figures`) and boundary F by size, calibration, encodings."""
    figures, boundary = {}, {}
    for group, some in groups(things):
        count = {"things": len(some)}
        figures[group] = {**count, **{name: _mean(some[name]) for name in (*PROMPTS, "score error")}}
        boundary[group] = {**count, **{name: _mean(some[f"{name} boundary"]) for name in PROMPTS}}
    table = bins(things)
    calibration = {
        "mean absolute error": figures["all"]["score error"],
        "expected error": round(expected_error(table), 4),
        "bins": table.round(4).to_dict("records"),
    }
    kept = encodings(things).round(4).to_dict("records")
    return {"figures": figures, "boundary": boundary, "calibration": calibration, "encodings": kept}


def bins(things: pd.DataFrame) -> pd.DataFrame:
    """Predicted scores of the answers to SCORED in BINS bins of one width from 0 to 1, those beyond in the outermost.

    Columns `from`, `to`, `answers`, `score` (mean predicted IoU), `iou` (mean true IoU); empty bins are left out.
    """
    scores = np.concatenate([things[f"{prompt} score"] for prompt in SCORED])
    ious = np.concatenate([things[prompt] for prompt in SCORED])
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


def expected_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a table of `bins`: the mean, over answers, of their bin's |mean score - mean IoU|.

    Naeini et al. (Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015), with IoU as what a score
    predicts.
    """
    return float(np.average((table["score"] - table["iou"]).abs(), weights=table["answers"]))


def difference(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The second model's figures less the first's, on the same objects in the same order.

    Columns `group`, `things`, `figure` (IoU by its prompt, boundary F as `box boundary`, `score error`), `first`,
    `second`, `difference`, and `spread`: the standard error of the difference, by the objects' own differences.
    """
    rows = []
    names = (*PROMPTS, *(f"{prompt} boundary" for prompt in PROMPTS), "score error")
    for (group, a), (_, b) in zip(groups(first), groups(second), strict=True):
        for name in names:
            change = b[name] - a[name]
            spread = float(change.std() / np.sqrt(len(change))) if len(change) > 1 else float("nan")
            rows.append((group, len(a), name, a[name].mean(), b[name].mean(), change.mean(), spread))
    return pd.DataFrame(rows, columns=["group", "things", "figure", "first", "second", "difference", "spread"])


def scalars(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Figures of two reports that are not means over objects: calibration, encodings, COCO's AP."""
    found = {"expected error": tuple(one["calibration"]["expected error"] for one in (first, second))}
    for a, b in zip(first["encodings"], second["encodings"], strict=True):
        found[f"{a['encoding']} kept"] = (a["kept"], b["kept"])
    for name, value in first.get("average precision", {}).items():
        found[name] = (value, second["average precision"][name])
    return found


def _mean(column: pd.Series) -> float:
    return round(float(column.mean()), 4)
