"""The entry script of an Azure ML managed online endpoint.

Azure's inference server calls `init()` once and `run(raw)` for each request.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

# Azure's server loads this file by its path. The project may be an uploaded checkout that is not installed, so the
# folder that contains the package (the top of the checkout, or site-packages) is added to the import path.
sys.path.insert(0, next(str(up) for up in Path(__file__).resolve().parents if (up / "sam_endpoint").is_dir()))

from azureml_inference_server_http.api.aml_response import AMLResponse

from sam_endpoint.model.mlflow.messages import trace
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring import azure
from sam_endpoint.scoring.errors import Problem, is_expected, problem_of
from sam_endpoint.scoring.runtime import OpenedModel, open_model

logger = logging.getLogger("azmlinfsrv.segment_anything")
model: OpenedModel


def init() -> None:
    """Open the MLflow model in the folder that `AZUREML_MODEL_DIR` names, or in a folder below it.

    Raises:
        BadModel: there is no MLflow model, or it cannot be used.
    """
    global model
    model = open_model(azure.model_folder())


def run(raw: str) -> Any:
    """Answer one request.

    Args:
        raw: JSON text `{"input_data": table, "params": {...}}`.

    Returns:
        A list with one object for each row of the table, or an error response with its HTTP status.
    """
    try:
        table, params = azure.read_request(raw)
        scorer = Scorer(model.engine, model.settings.request_limits)
        return azure.to_records(scorer.score_frame(table, model.defaults.read(params), model.settings.new_call()))
    except Exception as error:
        if not is_expected(error):
            # If the error were raised, Azure's server would send its stack trace to the client.
            logger.error("a request failed\n%s", trace(error))
        return _response(problem_of(error))


def _response(problem: Problem) -> AMLResponse:
    content = {"error": {"message": problem.message}}
    return AMLResponse(content, problem.status, json_str=True, run_function_failed=problem.status >= 500)
