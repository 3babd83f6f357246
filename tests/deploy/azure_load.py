"""Load the files of deploy/azureml with Azure's SDK, which validates them, and print their content as JSON.

Usage: .venv/clients/bin/python azure_load.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from azure.ai.ml import (
    load_batch_deployment,
    load_batch_endpoint,
    load_environment,
    load_online_deployment,
    load_online_endpoint,
)
from azure.ai.ml._utils._asset_utils import get_upload_files_from_folder

LOADERS = {
    "environment": load_environment,
    "online-endpoint": load_online_endpoint,
    "online-deployment": load_online_deployment,
    "batch-endpoint": load_batch_endpoint,
    "batch-deployment": load_batch_deployment,
}
entities = {}
for name, load in LOADERS.items():
    loaded = load(source=f"{sys.argv[1]}/{name}.yaml")
    entities[name] = {"type": type(loaded).__name__, "name": loaded.name}
    for part in ("endpoint_name", "instance_type", "output_action"):
        if hasattr(loaded, part):
            entities[name][part] = str(getattr(loaded, part))
    if getattr(loaded, "model", None):
        entities[name]["model"] = str(loaded.model.path)
    if getattr(loaded, "code_configuration", None):
        entities[name]["script"] = loaded.code_configuration.scoring_script
        code = Path(sys.argv[1]) / loaded.code_configuration.code
        uploaded = [path for _, path in get_upload_files_from_folder(code)]
        entities[name]["uploaded"] = sorted(path for path in uploaded if path.startswith("sam_endpoint/"))
print(json.dumps(entities))
