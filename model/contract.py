"""What goes in and what comes out: the columns, the params, the signature; a frame to rows, answers to a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from model import masks, prompts
from model.errors import BadInput, BadParameter, kind
from model.everything import Grid
from model.prompts import Prompt

LONGEST_ID = 512  # characters of an image_id
COLUMNS = (
    "image",
    "input_points",
    "input_boxes",
    "input_labels",
    "multimask_output",
    "image_id",
    "mask_input",
)
RESPONSE_FORMATS = ("model_card", "azureml")
ON_ERROR = ("raise", "record")


@dataclass(frozen=True)
class Params:
    """The parameters of a request; the defaults are the contract's."""

    mask_encoding: str = "png"
    response_format: str = "model_card"
    return_logits: bool = False
    on_error: str = "raise"
    points_per_side: int = Grid.points_per_side
    points_per_batch: int = Grid.points_per_batch
    pred_iou_thresh: float = Grid.pred_iou_thresh
    stability_score_thresh: float = Grid.stability_score_thresh
    stability_score_offset: float = Grid.stability_score_offset
    box_nms_thresh: float = Grid.box_nms_thresh
    crop_n_layers: int = Grid.crop_n_layers
    crop_nms_thresh: float = Grid.crop_nms_thresh
    crop_overlap_ratio: float = Grid.crop_overlap_ratio
    crop_n_points_downscale_factor: int = Grid.crop_n_points_downscale_factor
    min_mask_region_area: int = Grid.min_mask_region_area

    @property
    def grid(self) -> Grid:
        """The parameters of automatic mask generation among these."""
        return Grid(**{field.name: getattr(self, field.name) for field in fields(Grid)})

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Params:
        """From names and values, each of its default's type. Raises BadParameter by name."""
        known = {field.name: field for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise BadParameter(f"unknown parameter '{name}'; known are {', '.join(known)}")
            wanted = type(known[name].default)
            if wanted is float and type(value) is int:
                continue
            if type(value) is not wanted:
                raise BadParameter(f"parameter '{name}': expected {_TYPE_WORDS[wanted]}, got {kind(value)}")
        params = cls(**given)
        for name, choices in _CHOICES.items():
            if getattr(params, name) not in choices:
                raise BadParameter(
                    f"parameter '{name}': expected {' or '.join(repr(choice) for choice in choices)}, "
                    f"got {getattr(params, name)[:40]!r}"
                )
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(params, name) <= high:  # false for NaN too
                word = _TYPE_WORDS[type(getattr(cls, name))]
                came = kind(getattr(params, name))
                raise BadParameter(f"parameter '{name}': expected {word} from {low:g} to {high:,}, got {came}")
        return params


PARAM_NAMES = tuple(field.name for field in fields(Params))
_CHOICES = {"mask_encoding": masks.ENCODINGS, "response_format": RESPONSE_FORMATS, "on_error": ON_ERROR}
_RANGES = {
    "points_per_side": (1, 128),
    "points_per_batch": (1, 1024),
    "pred_iou_thresh": (0, 1),
    "stability_score_thresh": (0, 1),
    "stability_score_offset": (0, 100),
    "box_nms_thresh": (0, 1),
    "crop_n_layers": (0, 3),
    "crop_nms_thresh": (0, 1),
    "crop_overlap_ratio": (0, 0.9),
    "crop_n_points_downscale_factor": (1, 128),
    "min_mask_region_area": (0, 10**9),
}
_TYPE_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
_PARAM_TYPES = {str: DataType.string, bool: DataType.boolean, int: DataType.long, float: DataType.double}


@dataclass(frozen=True)
class Row:
    """One row, read and checked: an image (or the name of a kept one) and the prompts on it.

    index: the row's label in its frame; image: base64 text, a URL or bytes, or None when `image_id` names it.
    """

    index: object
    image: str | bytes | None
    image_id: str | None
    prompts: Sequence[Prompt]
    multimask_output: bool


def read_rows(frame: pd.DataFrame, most: int | None = None) -> list[Row | BadInput]:
    """Every row of a frame, in order; a row that cannot be read stands as its error. Other columns are ignored.

    most: most prompts of a row, and most points of one of these."""
    present = [name for name in COLUMNS if name in frame.columns]
    rows: list[Row | BadInput] = []
    for index, *cells in zip(frame.index, *(frame[name] for name in present), strict=True):
        try:
            rows.append(read_row(index, dict(zip(present, cells, strict=True)), most))
        except BadInput as error:
            rows.append(error.at(index))
    return rows


def unfolded(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, but columns that MLflow folded into one row as columns again.

    MLflow takes `{"image": ["a", "b"], "input_boxes": ["[...]", "[...]"]}` (its `inputs` form), when every value is
    text, for one row with lists in its cells. No image is a list, so that such a row is known by it.
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


def read_row(index: object, cells: Mapping[str, Any], most: int | None = None) -> Row:
    """One row from its cells by column name. Raises BadInput."""
    image, image_id = (None if prompts.is_missing(cells.get(name)) else cells[name] for name in ("image", "image_id"))
    if image is None and image_id is None:
        raise BadInput("image", "base64 text, an http(s) URL or bytes (or an image_id of a kept image)", "nothing")
    if image_id is not None and len(str(image_id)) > LONGEST_ID:
        raise BadInput("image_id", f"at most {LONGEST_ID} characters", kind(image_id))
    if isinstance(image, (bytearray, memoryview)):
        image = bytes(image)
    return Row(
        index=index,
        image=image,
        image_id=None if image_id is None else str(image_id),
        prompts=prompts.read(
            cells.get("input_points"),
            cells.get("input_labels"),
            cells.get("input_boxes"),
            cells.get("mask_input"),
            most,
        ),
        multimask_output=_read_flag("multimask_output", cells.get("multimask_output")),
    )


def _read_flag(column: str, value: object) -> bool:
    if prompts.is_missing(value):
        return True
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise BadInput(column, "true or false", kind(value))


def answers_to_frame(answers: Sequence[dict[str, Any]], index: pd.Index, params: Params) -> pd.DataFrame:
    """Answers with `predictions`, `image_id` and `error`, one a row, as the frame that goes out."""
    if params.response_format == "azureml":
        return pd.DataFrame({"response": pd.Series([_to_azureml(answer) for answer in answers], index, dtype=object)})
    columns = {name: [answer[name] for answer in answers] for name in OUTPUT_COLUMNS}
    return pd.DataFrame(columns, index, dtype=object)


def _to_azureml(answer: dict[str, Any]) -> dict[str, Any]:
    kept = ("encoded_binary_mask", "iou_score")
    response: dict[str, Any] = {
        "predictions": [
            {"masks_per_prediction": [{name: one[name] for name in kept} for one in prediction["mask_per_prediction"]]}
            for prediction in answer["predictions"]
        ]
    }
    return response if answer["error"] is None else {**response, "error": answer["error"]}


class MaskAnswer(dict[str, Any]):
    """A mask of an answer. MLflow's `spark_udf` looks for logits that were not asked for too, and must find None."""

    def __missing__(self, name: str) -> None:
        if name != "low_res_logits":
            raise KeyError(name)


OUTPUT_COLUMNS = ("predictions", "image_id", "error")


def signature(defaults: Params) -> ModelSignature:
    """The logged model's signature. The prompt columns and `image` are untyped: JSON text and nested lists, text and
    bytes alike pass through, and a null `multimask_output` stays a null."""
    typed = {"image_id": DataType.string}
    mask = Object(
        [
            Property("encoded_binary_mask", DataType.string),
            Property("iou_score", DataType.double),
            Property("size", Array(DataType.long)),
            Property("bbox", Array(DataType.double)),
            Property("area", DataType.long),
            Property("low_res_logits", DataType.string, required=False),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(typed.get(name, AnyType()), name, required=False) for name in COLUMNS]),
        outputs=Schema(
            [
                ColSpec(Array(Object([Property("mask_per_prediction", Array(mask))])), "predictions"),
                ColSpec(DataType.string, "image_id", required=False),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema(
            [ParamSpec(name, _PARAM_TYPES[type(value)], value) for name, value in vars(defaults).items()]
        ),
    )
