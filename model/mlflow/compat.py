"""Work around faults of MLflow."""

from __future__ import annotations

import logging
import sys
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.types import DataType, Schema

_MARK = "_accepts_untyped_columns"
_KEEPS = "_keeps_missing_text"


def accept_untyped_columns() -> None:
    """Let MLflow's scoring server read CSV bodies for signatures with untyped (AnyType) columns.

    Since mlflow/mlflow#5531, the server reads the pandas types of a CSV body's columns from the schema.
    `Schema.pandas_types` raises an exception for every schema with an untyped column. Typed columns are no alternative,
    because a boolean column turns null into False. This function replaces the method by one that returns `object` for
    untyped columns. Schemas without untyped columns keep MLflow's result. A second call has no effect.

    The replacement can be removed once MLflow supports untyped columns; a test in `tests/model/test_compat.py` fails
    then.
    """
    original = Schema.pandas_types
    if getattr(original, _MARK, False):
        return

    def pandas_types(self: Schema) -> list[np.dtype[Any]]:
        try:
            return original(self)
        except MlflowException:
            if self.is_tensor_spec():
                raise
            return [c.type.to_pandas() if isinstance(c.type, DataType) else np.dtype(object) for c in self.inputs]

    setattr(pandas_types, _MARK, True)
    name = "pandas_types"
    setattr(Schema, name, pandas_types)


def keep_missing_text() -> None:
    """Let the function of `spark_udf` return null for missing text.

    The function casts a column of text with `Series.astype`. If the column has both text and None, the cast turns None
    into the text "None". So in a batch of rows with a bad row, the `error` of all good rows would be "None". A second
    call has no effect.

    The replacement can be removed once MLflow keeps None; a test in `tests/model/test_compat.py` fails then.
    """
    name = "_convert_struct_values"
    original = getattr(mlflow.pyfunc, name, None)
    if original is None or getattr(original, _KEEPS, False):
        return

    def convert(result: Any, result_type: Any) -> Any:
        converted = original(result, result_type)
        if isinstance(result, pd.DataFrame):
            for field in result_type.fields:
                if field.dataType.typeName() == "string":
                    missing = result[field.name].isna().to_numpy()
                    converted[field.name] = converted[field.name].astype(object).mask(missing, None)
        return converted

    setattr(convert, _KEEPS, True)
    setattr(mlflow.pyfunc, name, convert)


def quiet_scoring_server() -> None:
    """Silence MLflow's warnings about unknown columns and params in a process of its scoring server.

    The warnings of `mlflow.models.utils` hold the names of the columns and params, which are request data. Processes
    that only load a model still log the warnings.
    """
    if "mlflow.pyfunc.scoring_server.app" in sys.modules:
        logging.getLogger("mlflow.models.utils").setLevel(logging.ERROR)


class RequestError(MlflowException):
    """An error for the client of MLflow's scoring server, with a message that cannot change.

    The server adds the request data, including the image, to the message of every MlflowException
    (`mlflow.pyfunc.scoring_server.invocations`). This class ignores every change of its message.
    """

    @property
    def message(self) -> str:
        """The message that the exception was created with."""
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message: str = vars(self).get("_message", text)
