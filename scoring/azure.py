"""What Azure ML's entry scripts share."""

from __future__ import annotations

import os
from pathlib import Path


def model_folder() -> str:
    """The MLflow model that lies in `AZUREML_MODEL_DIR` or in a folder below it. Raises FileNotFoundError."""
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    found = sorted(folder.rglob("MLmodel"), key=lambda path: len(path.parts))
    if not found:
        raise FileNotFoundError(f"no MLmodel file in AZUREML_MODEL_DIR={folder} or below it")
    return str(found[0].parent)
