"""The entry script of an Azure ML managed online endpoint: `init()` once, `run(raw)` a request."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

# Azure's server loads this file by its path, with nothing of the project importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from azureml_inference_server_http.api.aml_response import AMLResponse
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

from model.errors import BadParameter
from scoring import azure, models
from scoring.online import azureml

logger = logging.getLogger("azmlinfsrv.segment_anything")
endpoint: PyFuncModel


def init() -> None:
    """Loads the MLflow model that lies in `AZUREML_MODEL_DIR` or in a folder below it."""
    global endpoint
    endpoint = models.load(azure.model_folder())


def run(raw: str) -> Any:
    """One request: the list of its rows' answers, or HTTP 400 (404 for an unknown image_id) with what is wrong."""
    try:
        table, params = azureml.read(raw)
        return azureml.render(endpoint.predict(table, params=params))
    except (azureml.BadRequest, BadParameter) as error:
        return _refuse(str(error), 400)
    except MlflowException as error:
        return _refuse(error.message, error.get_http_status_code())
    except Exception:
        # The server would send the stack trace to the client.
        logger.exception("a request failed")
        return _refuse("the request could not be scored; the endpoint's log says why", 500)


def _refuse(message: str, status: int) -> AMLResponse:
    return AMLResponse({"error": {"message": message}}, status, json_str=True, run_function_failed=status >= 500)
