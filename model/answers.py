"""Build the answers of rows: the dictionaries of masks and predictions, and the output table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from . import masks
from .call import Call
from .engine import Engine
from .params import Params
from .rows import OUTPUT_COLUMNS
from .segmentation import Segmentation

OPTIONAL = (
    "low_res_logits",
    "concept",
    "concept_index",
    "frame",
    "object",
)  # keys of masks and predictions that may be absent


def mask_answer(mask: dict[str, Any], score: float, logits: Tensor | None, params: Params) -> PartialAnswer:
    """Return one mask of an answer.

    Args:
        mask: the encoded mask, as returned by `masks.encode_all`.
        score: predicted IoU or detection score.
        logits: (h, w) low-resolution logits, which `params.return_logits` adds to the answer; None for unknown logits.
        params: the parameters of the request.
    """
    answer = PartialAnswer(**mask, iou_score=float(score))
    if params.return_logits and logits is not None:
        answer["low_res_logits"] = masks.logits_to_text(logits.float().cpu().numpy())
    return answer


def text_length(answer: PartialAnswer) -> int:
    """Return the number of characters of a mask's encodings."""
    return len(answer["encoded_binary_mask"]) + len(answer.get("low_res_logits", ""))


def render(engine: Engine, segmentation: Segmentation, params: Params, call: Call) -> PartialAnswer:
    """Compute and encode the masks of a segmentation.

    Args:
        engine: the engine that computed the segmentation.
        segmentation: the masks of one prompt.
        params: the parameters of the request.
        call: deadline, cancellation and memory budget of the request.

    Returns:
        A dictionary whose only key is `mask_per_prediction`, the list of the prompt's masks.

    Raises:
        BadRequest: the response is larger than the call allows.
        Overloaded, DeadlineExceeded, ClientDisconnected: as `Call.check` and `Call.count_answer`.
    """
    with call.stage("mask"):
        cropped = engine.cropped_masks(segmentation)
    with call.stage("render"):
        encoded = masks.encode_all(cropped, params.mask_encoding)
        parts = zip(encoded, segmentation.scores, segmentation.logits, strict=True)
        answers = [mask_answer(mask, score, logits, params) for mask, score, logits in parts]
    # In the endpoint, a request occupies a processor until the stage ends. `count_answer` can wait for memory, so it
    # follows the stage.
    call.count_answer(sum(map(text_length, answers)))
    return PartialAnswer(mask_per_prediction=answers)


def answers_to_frame(answers: Sequence[dict[str, Any]], index: pd.Index, params: Params) -> pd.DataFrame:
    """Build the output table.

    Args:
        answers: dictionaries with `predictions`, `image_id` and `error`, one per row.
        index: the index of the output table.
        params: the parameters of the request; only `response_format` is used.
    """
    if params.response_format == "azureml":
        return pd.DataFrame({"response": pd.Series([_to_azureml(answer) for answer in answers], index, dtype=object)})
    columns = {name: [answer[name] for answer in answers] for name in OUTPUT_COLUMNS}
    return pd.DataFrame(columns, index, dtype=object)


def _to_azureml(answer: dict[str, Any]) -> dict[str, Any]:
    names = ("encoded_binary_mask", "iou_score")
    response: dict[str, Any] = {
        "predictions": [
            {
                "masks_per_prediction": [
                    {name: mask[name] for name in names} for mask in prediction["mask_per_prediction"]
                ],
                **{name: value for name, value in prediction.items() if name != "mask_per_prediction"},
            }
            for prediction in answer["predictions"]
        ]
    }
    return response if answer["error"] is None else {**response, "error": answer["error"]}


class PartialAnswer(dict[str, Any]):
    """A part of a response, as a dictionary in which keys may be absent.

    An absent key that `OPTIONAL` lists reads as None, because MLflow's `spark_udf` always reads it.
    """

    def __missing__(self, name: str) -> None:
        if name not in OPTIONAL:
            raise KeyError(name)
