"""The MLflow model: loads the checkpoint beside it, hands frames to the scorer, turns refusals into HTTP errors."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, set_model
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.pyfunc import PythonModel
from mlflow.types import DataType, Schema

from model import families
from model.contract import PARAM_NAMES, Params
from model.embeddings import Embeddings
from model.errors import DEFECT, NO_MEMORY, BadInput, BadParameter, Busy, Gone, UnknownImage, is_out_of_memory
from model.scorer import Scorer
from model.segmenter import Segmenter
from model.settings import Settings

logger = logging.getLogger(__name__)


class Refusal(MlflowException):
    """A request that cannot be scored, with a message for the one who sent it.

    The message is written once: MLflow's server would prepend the request's data to it, image and all.
    """

    def __init__(self, error: Exception) -> None:
        code, message = INTERNAL_ERROR, DEFECT
        if isinstance(error, UnknownImage):
            code, message = RESOURCE_DOES_NOT_EXIST, str(error)
        elif isinstance(error, (BadInput, BadParameter)):
            code, message = INVALID_PARAMETER_VALUE, str(error)
        elif isinstance(error, Busy):
            code, message = TEMPORARILY_UNAVAILABLE, str(error)
        elif is_out_of_memory(error):
            code, message = TEMPORARILY_UNAVAILABLE, NO_MEMORY
        super().__init__(message, error_code=code)

    @property
    def message(self) -> str:
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message = vars(self).get("_message", text)


class SegmentAnything(PythonModel):
    """Frames of images and prompts in, frames of masks and scores out; the contract is `model.contract`'s."""

    def load_context(self, context: Any) -> None:
        checkpoint = Path(context.artifacts["checkpoint"])
        config = dict(context.model_config or {})
        logged = Model.load(str(checkpoint.parent.parent))
        self.signature_params = {spec.name: spec.default for spec in logged.signature.params}
        self.deployment_params = {name: config.pop(name) for name in PARAM_NAMES if name in config}
        settings = Settings(**config)
        params = Params.read(self.deployment_params)
        with ThreadPoolExecutor(1) as beside:
            hashes = beside.submit(families.hashes, checkpoint)
            segmenter = Segmenter.load(
                str(checkpoint),
                settings.device,
                settings.precision,
                images_per_batch=settings.images_per_batch,
                prompts_per_batch=settings.prompts_per_batch,
            )
        packaged = (logged.metadata or {}).get("weights_sha256")
        if packaged is not None and packaged != hashes.result():
            raise MlflowException("the weights beside the model are not those it was packaged with; package it again")
        embeddings = Embeddings(settings.cache_bytes)
        self.scorer = Scorer(segmenter, embeddings, settings.limits, max_prompts=settings.max_prompts, params=params)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One answer a row, under the row's index. Raises Refusal (HTTP 400; 404 for an unknown image_id; 503 where
        there is no room for it now; 500 for a defect, of which only the log tells)."""
        try:
            return self.scorer.score_frame(model_input, Params.read(self.with_defaults(params or {})))
        except (BadInput, BadParameter, Busy, Gone) as error:
            raise Refusal(error) from None
        except Exception as error:
            logger.exception("a request failed")
            raise Refusal(error) from None

    def with_defaults(self, params: dict[str, Any]) -> dict[str, Any]:
        """MLflow fills what a request leaves out from the signature; there the deployment's own default stands."""
        filled = {name: value for name, value in params.items() if value != self.signature_params.get(name)}
        return {**self.signature_params, **self.deployment_params, **filled}


def _read_untyped_columns_as_they_come(schema: Schema) -> list[np.dtype[Any]]:
    return [
        column.type.to_pandas() if isinstance(column.type, DataType) else np.dtype(object) for column in schema.inputs
    ]


# MLflow 3.17's server refuses every CSV body for a signature with an untyped (AnyType) column, for want of a pandas
# type; typed columns in turn would turn a null multimask_output into False and refuse a plain column of bools.
Schema.pandas_types = _read_untyped_columns_as_they_come  # type: ignore[method-assign, assignment]

set_model(SegmentAnything())
