"""The MLflow pyfunc model: load the packaged checkpoint and score tables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from mlflow.pyfunc.model import PythonModel

from ..call import Call
from ..errors import INTERNAL_ERROR, OUT_OF_MEMORY, EndpointError, is_out_of_memory
from ..params import ParamDefaults
from ..saved import SavedModel
from ..scorer import Scorer
from .compat import RequestError, accept_untyped_columns, keep_missing_text, quiet_scoring_server
from .messages import trace

logger = logging.getLogger(__name__)


class SegmentAnything(PythonModel):
    """Scores tables of images and prompts. `docs/contract.md` describes the columns of input and output."""

    def load_context(self, context: Any) -> None:
        """Load the model. MLflow calls this method once.

        Args:
            context: MLflow's context, with the folder of the checkpoint and the `model_config`.

        Raises:
            MlflowException: the weights or the settings are invalid.
        """
        accept_untyped_columns()
        keep_missing_text()
        quiet_scoring_server()
        saved = SavedModel.read(Path(context.artifacts["checkpoint"]).parent.parent)
        try:
            engine, self.defaults = saved.open(context.model_config)
        except EndpointError as error:
            raise MlflowException(str(error)) from None
        self.settings = saved.settings(context.model_config)
        self.scorer = Scorer(engine, self.settings.request_limits)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score a table.

        Args:
            context: not used.
            model_input: a table with the input columns of the contract.
            params: params by name; MLflow has replaced absent params by the signature's defaults.

        Returns:
            One row per input row, with the same index.

        Raises:
            RequestError: as `score_for_mlflow`.
        """
        return score_for_mlflow(self.scorer, model_input, self.defaults, params, self.settings.new_call())


def score_for_mlflow(
    scorer: Scorer, frame: pd.DataFrame, defaults: ParamDefaults, params: dict[str, Any] | None, call: Call
) -> pd.DataFrame:
    """Score a table, and convert errors to MLflow's.

    Args:
        scorer: scores the table.
        frame: a table with the input columns of the contract.
        defaults: default params of the deployment.
        params: params by name; MLflow has replaced absent params by the signature's defaults.
        call: context of the request.

    Returns:
        One row per input row, with the same index.

    Raises:
        RequestError: the input or a param is invalid (HTTP 400), an image_id is unknown (404), a queue is full or
            memory is short (503), or an internal error occurred (500). Only the log holds the details of an internal
            error.
    """
    labels = frame.index
    if not all(type(label) is int for label in labels.tolist()):
        # Index labels that are not integers may be request data. For example, pandas takes the first fields of a CSV
        # line as its label if the line has more fields than the header. Error messages then name positions of rows
        # instead.
        frame = frame.reset_index(drop=True)
    try:
        answers = scorer.score_frame(frame, defaults.read_filled(params or {}), call)
        return answers.set_axis(labels) if len(answers) == len(labels) else answers
    except EndpointError as error:
        raise RequestError(str(error), error_code=databricks_pb2.ErrorCode.Value(error.code)) from None
    except Exception as error:
        logger.error("a request failed\n%s", trace(error))
        if is_out_of_memory(error):
            raise RequestError(OUT_OF_MEMORY, error_code=databricks_pb2.TEMPORARILY_UNAVAILABLE) from None
        raise RequestError(INTERNAL_ERROR, error_code=databricks_pb2.INTERNAL_ERROR) from None
