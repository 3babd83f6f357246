"""MLflow models, for every way in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.pyfunc import PyFuncModel, load_model


def load(model: str, **config: Any) -> PyFuncModel:
    """The model of an MLflow URI or a folder, with these settings of its deployment.

    Raises MlflowException, OSError and ValueError.
    """
    return load_model(where(model), model_config=config or None)


def where(model: str) -> str:
    """The URI as it is; a folder's true path, since MLflow refuses what lies behind a symbolic link."""
    return str(Path(model).resolve()) if Path(model).exists() else model
