"""The table contract: a frame to rows, answers to a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .errors import BadInput, kind
from .images import ImageRef
from .params import Params
from .prompts import Prompt, parse_prompts
from .prompts.cells import is_missing

MAX_ID = 512  # characters of an image_id
COLUMNS = (
    "image",
    "input_points",
    "input_boxes",
    "input_labels",
    "multimask_output",
    "image_id",
    "mask_input",
)
OUTPUT_COLUMNS = ("predictions", "image_id", "error")
# CSV files write flags as text: pandas and spreadsheets write 1.0 for a flag beside an empty cell.
FLAG_TEXT = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
ReadReference = Callable[[object], ImageRef]


@dataclass(frozen=True)
class Row:
    """One row of a table, parsed and checked: an image and the prompts on it.

    Attributes:
        index: the row's label in its frame.
        image: the image, or None if `image_id` names a cached one.
        image_id: the name of the image, if the row has one.
        prompts: the prompts; empty asks for every object in the image.
        multimask_output: whether each prompt gets 3 masks or 1.
    """

    index: object
    image: ImageRef | None
    image_id: str | None
    prompts: Sequence[Prompt]
    multimask_output: bool


def read_rows(frame: pd.DataFrame, reference: ReadReference, max_prompts: int | None = None) -> list[Row | BadInput]:
    """Parse every row of a frame, in order; a row that cannot be parsed is represented by its error.

    Args:
        frame: a table with the columns of COLUMNS; other columns are ignored.
        reference: turns a cell of the `image` column into a reference, such as `ImageReader.reference`.
        max_prompts: largest number of prompts in a row, and of points in a prompt.
    """
    present = [name for name in COLUMNS if name in frame.columns]
    rows: list[Row | BadInput] = []
    for index, *cells in zip(frame.index, *(frame[name] for name in present), strict=True):
        try:
            rows.append(read_row(index, dict(zip(present, cells, strict=True)), reference, max_prompts))
        except BadInput as error:
            rows.append(error.at(index))
    return rows


def read_row(index: object, cells: Mapping[str, Any], reference: ReadReference, max_prompts: int | None = None) -> Row:
    """Parse one row from its cells by column name. Raises BadInput."""
    present = {name: value for name, value in cells.items() if not is_missing(value)}
    image, image_id = present.get("image"), present.get("image_id")
    if image is None and image_id is None:
        raise BadInput("image", "base64 text, an http(s) URL or bytes (or an image_id of a kept image)", "nothing")
    if image_id is not None and len(str(image_id)) > MAX_ID:
        raise BadInput("image_id", f"at most {MAX_ID} characters", kind(image_id))
    return Row(
        index=index,
        image=None if image is None else reference(image),
        image_id=None if image_id is None else str(image_id),
        prompts=parse_prompts(
            present.get("input_points"),
            present.get("input_labels"),
            present.get("input_boxes"),
            present.get("mask_input"),
            max_prompts,
        ),
        multimask_output=_read_flag("multimask_output", present.get("multimask_output", True)),
    )


def unfold(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo MLflow's folding of columns into a single row; other frames are returned as they are.

    MLflow's `inputs` form `{"image": ["a", "b"], "input_boxes": ["[...]", "[...]"]}` becomes one row with lists in its
    cells if every value is text. An image is never a list, which tells such a row apart. Raises BadInput for columns
    of different lengths.
    """
    names = [name for name in ("image", "image_id") if name in frame.columns]
    if len(frame) != 1 or not any(isinstance(frame[name].iloc[0], list) for name in names):
        return frame
    cells = {name: frame[name].iloc[0] for name in frame.columns}
    lengths = {name: len(cell) if isinstance(cell, list) else 1 for name, cell in cells.items()}
    for name, length in lengths.items():
        if length != lengths[names[0]]:
            raise BadInput(name, f"as many values as '{names[0]}' has ({lengths[names[0]]})", str(length))
    columns = {name: cell if isinstance(cell, list) else [cell] for name, cell in cells.items()}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def _read_flag(column: str, value: object) -> bool:
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and (flag := FLAG_TEXT.get(value.strip().lower())) is not None:
        return flag
    raise BadInput(column, "true or false", kind(value))


def answers_to_frame(answers: Sequence[dict[str, Any]], index: pd.Index, params: Params) -> pd.DataFrame:
    """Return answers (each with `predictions`, `image_id`, `error`) as the output frame, one row an answer."""
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
                ]
            }
            for prediction in answer["predictions"]
        ]
    }
    return response if answer["error"] is None else {**response, "error": answer["error"]}


class MaskAnswer(dict[str, Any]):
    """A mask of an answer. MLflow's `spark_udf` reads `low_res_logits` even if absent, and expects None then."""

    def __missing__(self, name: str) -> None:
        if name != "low_res_logits":
            raise KeyError(name)
