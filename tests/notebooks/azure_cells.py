"""Run the Azure cells of a notebook with Azure's SDK and a mock client, and print the client's calls as JSON.

The mock client checks the arguments of each call against the signature of the SDK's method.

Usage: .venv/clients/bin/python azure_cells.py NOTEBOOK MODEL FOLDER
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import azure.ai.ml
import azure.identity
import pandas as pd
from azure.ai.ml import operations

GUARD = "if RUN_ON_AZURE:"
PARTS = {
    "online_endpoints": operations.OnlineEndpointOperations,
    "online_deployments": operations.OnlineDeploymentOperations,
    "batch_endpoints": operations.BatchEndpointOperations,
    "batch_deployments": operations.BatchDeploymentOperations,
    "compute": operations.ComputeOperations,
    "jobs": operations.JobOperations,
}


def download(name: str, download_path: str, output_name: str) -> None:
    """Write predictions as the SDK's download of a job does."""
    file = Path(download_path) / "named-outputs" / output_name / "predictions.csv"
    file.parent.mkdir(parents=True)
    file.write_text("0,[]\n")


def main(notebook: str, model: str, folder: str) -> None:
    """Run the cells that begin with `if RUN_ON_AZURE:`, and print the calls and the deployment.

    Args:
        notebook: file of the notebook.
        model: folder of a packaged model.
        folder: folder for inputs and downloads.
    """
    workspace = mock.MagicMock()
    for name, kind in PARTS.items():
        workspace.attach_mock(mock.create_autospec(kind, instance=True), name)
    workspace.batch_endpoints.invoke.return_value = SimpleNamespace(name="job")
    workspace.jobs.list.return_value = [SimpleNamespace(name="scoring")]
    workspace.jobs.download.side_effect = download
    answer = [{"predictions": [{"mask_per_prediction": [{"encoded_binary_mask": "", "iou_score": 0.9}]}]}]
    workspace.online_endpoints.invoke.return_value = json.dumps(answer)
    names = ("overlay", "decode", "shown", "ImageLimits", "display")
    variables: dict[str, Any] = {name: mock.MagicMock() for name in names}
    variables |= {"Path": Path, "json": json, "pd": pd, "time": time, "body": {"input_data": []}, "coffee": b""}
    variables |= {"RUN_ON_AZURE": True, "saved": Path(model), "folder": Path(folder), "inputs": Path(folder)}
    with (
        mock.patch.object(azure.ai.ml.MLClient, "from_config", return_value=workspace),
        mock.patch.object(azure.identity, "DefaultAzureCredential"),
    ):
        for cell in json.loads(Path(notebook).read_text())["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "code" and text.startswith(GUARD):
                exec(text, variables)
    deployment = variables["deployment"]
    calls = [name for name, _, _ in workspace.method_calls]
    print(json.dumps({"calls": calls, "endpoint": deployment.endpoint_name, "model": str(deployment.model.path)}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
