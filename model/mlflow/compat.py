"""Workarounds for faults of MLflow, each with the upstream report and the test that tells when it can go."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.types import DataType, Schema

_MARK = "_accepts_untyped_columns"


def accept_untyped_columns() -> None:
    """Let MLflow's scoring server read CSV bodies for signatures with untyped (AnyType) columns.

    Since mlflow/mlflow#5531 the server asks the schema for the pandas types of a CSV body's columns, and
    `Schema.pandas_types` raises for every schema with an untyped column. Typed columns are no way out: a boolean column
    turns null into False. All schemas without untyped columns are left to MLflow's own method. Calling this twice
    changes nothing. `tests/model/test_compat.py` fails once MLflow answers by itself.
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


def quiet_scoring_server() -> None:
    """Leave out MLflow's log lines about unknown columns and params, in a process of its scoring server.

    `mlflow.models.utils` writes their names, which are the client's data. Processes that only load a model keep the
    lines.
    """
    if "mlflow.pyfunc.scoring_server.app" in sys.modules:
        logging.getLogger("mlflow.models.utils").setLevel(logging.ERROR)


class Refusal(MlflowException):
    """An error for the client of MLflow's scoring server, whose message cannot be extended.

    The server prepends the request's data, image included, to the message of every MlflowException
    (`mlflow.pyfunc.scoring_server.invocations`); here the first message stays.
    """

    @property
    def message(self) -> str:
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message: str = vars(self).get("_message", text)
