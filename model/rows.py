"""The table contract: a frame to rows, answers to a frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from .errors import MAX_NAME, BadInput, kind
from .images import ImageRef
from .params import Params
from .prompts import Prompt, parse_prompts
from .prompts.cells import is_empty, is_missing

MAX_ID = 512  # characters of an image_id
MAX_NAMES = 1000  # columns whose names are compared with ours
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
PROMPT_COLUMNS = ("input_points", "input_labels", "input_boxes", "mask_input")
# Names of other tools for the prompt columns.
SYNONYMS = {
    **dict.fromkeys(("box", "boxes", "bbox", "bboxes"), "input_boxes"),
    **dict.fromkeys(("point", "points", "point_coords"), "input_points"),
    "point_labels": "input_labels",
}
MIN_SIMILARITY = 0.85
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
        prompts: the prompts; None asks for every object in the image.
        multimask_output: whether each prompt gets 3 masks or 1.
    """

    index: object
    image: ImageRef | None
    image_id: str | None
    prompts: Sequence[Prompt] | None
    multimask_output: bool


def column_names(names: Iterable[object]) -> dict[object, object]:
    """Map the names of a table's columns to themselves, or to the name in COLUMNS that they spell in another way.

    Case, surrounding spaces and a byte-order mark do not matter; spaces and hyphens count as underscores.

    Raises:
        BadInput: two columns have the same name in COLUMNS, or a prompt column is misspelt. Without this error,
            each row would ask for every object in its image.
    """
    original = list(names)
    plain = [_plain_name(name) for name in original]
    renamed = [text if text in COLUMNS else name for text, name in zip(plain, original, strict=True)]
    for column in COLUMNS:
        if (count := renamed.count(column)) > 1:
            raise BadInput(column, "one column of this name", str(count))
    absent = [column for column in (*PROMPT_COLUMNS, "multimask_output") if column not in renamed]
    for name in plain[:MAX_NAMES]:
        meant = _meant(name, absent)
        if meant is not None:
            raise BadInput(name, f"the name '{meant}' (rename the column)", "a name that is not read")
    return dict(zip(original, renamed, strict=True))


def _plain_name(name: object) -> str:
    return name.strip("\ufeff \t\r\n").lower().replace(" ", "_").replace("-", "_") if isinstance(name, str) else ""


def _meant(name: str, absent: Sequence[str]) -> str | None:
    """Return the absent column that a name seems to mean, or None."""
    if name in COLUMNS or not 3 <= len(name) <= MAX_NAME:
        return None
    if name in SYNONYMS and all(column in absent for column in PROMPT_COLUMNS):
        return SYNONYMS[name]
    return next(iter(get_close_matches(name, absent, 1, MIN_SIMILARITY)), None)


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
    points, labels, boxes, masks = (cells.get(name) for name in PROMPT_COLUMNS)
    prompts = parse_prompts(points, labels, boxes, masks, max_prompts)
    # An empty list, such as a detector's that found nothing, asks for nothing; only missing cells ask for everything.
    everything = not prompts and not any(map(is_empty, (points, boxes, masks)))
    return Row(
        index=index,
        image=None if image is None else reference(image),
        image_id=None if image_id is None else _read_id(image_id),
        prompts=None if everything else prompts,
        multimask_output=_read_flag("multimask_output", present.get("multimask_output", True)),
    )


def unfold(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo MLflow's folding of columns into a single row; other frames are returned as they are.

    MLflow's `inputs` form `{"image": ["a", "b"], "input_boxes": ["[...]", "[...]"]}` becomes one row with lists in its
    cells if every value is text. An image is never a list of text, which tells such a row apart. Raises BadInput for
    columns of different lengths.
    """
    names = [name for name in ("image", "image_id") if name in frame.columns]
    if len(frame) != 1 or not any(_is_list_of_text(frame[name].iloc[0]) for name in names):
        return frame
    cells = {name: frame[name].iloc[0] for name in frame.columns}
    lengths = {name: len(cell) if isinstance(cell, list) else 1 for name, cell in cells.items()}
    for name, length in lengths.items():
        if length != lengths[names[0]]:
            raise BadInput(name, f"as many values as '{names[0]}' has ({lengths[names[0]]})", str(length))
    columns = {name: cell if isinstance(cell, list) else [cell] for name, cell in cells.items()}
    return pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in columns.items()})


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _read_id(value: object) -> str:
    """Return an id as text; 7 and 7.0, which pandas makes of a 7 beside an empty cell, are the same id."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)) or len(text := str(value)) > MAX_ID:
        raise BadInput("image_id", f"text of at most {MAX_ID} characters, or a whole number", kind(value))
    return text


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
