"""The MLflow model: opens the checkpoint beside it and scores frames."""

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
from .compat import Refusal, accept_untyped_columns, quiet_scoring_server
from .messages import trace

logger = logging.getLogger(__name__)


class SegmentAnything(PythonModel):
    """Frames of images and prompts in, frames of masks and scores out, as `docs/contract.md` describes."""

    def load_context(self, context: Any) -> None:
        """Load the model. Raises MlflowException for weights or settings that cannot be used."""
        accept_untyped_columns()
        quiet_scoring_server()
        saved = SavedModel.read(Path(context.artifacts["checkpoint"]).parent.parent)
        try:
            engine, self.defaults = saved.open(context.model_config)
        except EndpointError as error:
            raise MlflowException(str(error)) from None
        self.scorer = Scorer(engine)
        self.max_answer_bytes = saved.settings(context.model_config).max_answer_bytes

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one answer a row, under the row's index. Raises Refusal as `score_for_mlflow` does."""
        call = Call(max_answer_bytes=self.max_answer_bytes)
        return score_for_mlflow(self.scorer, model_input, self.defaults, params, call)


def score_for_mlflow(
    scorer: Scorer, frame: pd.DataFrame, defaults: ParamDefaults, params: dict[str, Any] | None, call: Call
) -> pd.DataFrame:
    """Score a table whose params MLflow has filled from the signature.

    Raises:
        Refusal: the input or a param is invalid (HTTP 400), an image_id is unknown (404), there is no capacity at the
            moment (503), or an internal error occurred (500), whose details only the log has.
    """
    labels = frame.index
    if not all(type(label) is int for label in labels.tolist()):
        # Labels that are not numbers may be data of the request, such as the first fields of a CSV line that has more
        # fields than the header. Messages name the positions of such rows.
        frame = frame.reset_index(drop=True)
    try:
        answers = scorer.score_frame(frame, defaults.read_filled(params or {}), call)
        return answers.set_axis(labels) if len(answers) == len(labels) else answers
    except EndpointError as error:
        raise Refusal(str(error), error_code=databricks_pb2.ErrorCode.Value(error.code)) from None
    except Exception as error:
        logger.error("a request failed\n%s", trace(error))
        if is_out_of_memory(error):
            raise Refusal(OUT_OF_MEMORY, error_code=databricks_pb2.TEMPORARILY_UNAVAILABLE) from None
        raise Refusal(INTERNAL_ERROR, error_code=databricks_pb2.INTERNAL_ERROR) from None
