"""Build the MLflow signature of a saved model: input columns, output columns and params."""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, Object, Property

from ..params import Params, param_type
from ..rows import COLUMNS

_PARAM_TYPES = {str: DataType.string, bool: DataType.boolean, int: DataType.long, float: DataType.double}


def signature(defaults: Params) -> ModelSignature:
    """Build the signature of a model.

    All input columns are untyped (AnyType). An untyped column accepts JSON text as well as nested lists, bytes as well
    as text, and ids that are numbers as well as text. Also, a boolean column would turn null into False.

    Args:
        defaults: the default params of the model.
    """
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
    prediction = Object(
        [
            Property("mask_per_prediction", Array(mask)),
            Property("concept", DataType.string, required=False),
            Property("concept_index", DataType.long, required=False),
        ]
    )
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name, required=False) for name in COLUMNS]),
        outputs=Schema(
            [
                ColSpec(Array(prediction), "predictions"),
                ColSpec(DataType.string, "image_id", required=False),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema(
            [ParamSpec(name, _PARAM_TYPES[param_type(name)], value) for name, value in vars(defaults).items()]
        ),
    )
