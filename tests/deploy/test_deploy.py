"""The files people deploy with: read by the tools that will read them, and true of this project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sam_endpoint.scoring.online.settings import EndpointSettings
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def loaded(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What Azure's SDK makes of deploy/azureml, in a checkout in which a model has been packaged."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("deploy", "scoring", "model", "sam_endpoint"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    shutil.copytree(packaged, folder / "build" / "model")
    python = Path(sys.prefix) / "clients" / "bin" / "python"
    script = Path(__file__).with_name("azure_load.py")
    done = subprocess.run(
        [str(python), str(script), str(folder / "deploy" / "azureml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    entities: dict[str, dict[str, str]] = json.loads(done.stdout)
    return entities


def test_azures_sdk_takes_them(loaded: dict[str, dict[str, Any]]) -> None:
    assert {name: one["type"] for name, one in loaded.items()} == {
        "environment": "Environment",
        "online-endpoint": "ManagedOnlineEndpoint",
        "online-deployment": "ManagedOnlineDeployment",
        "batch-endpoint": "BatchEndpoint",
        "batch-deployment": "BatchDeployment",
    }
    for kind in ("online", "batch"):
        assert loaded[f"{kind}-deployment"]["endpoint_name"] == loaded[f"{kind}-endpoint"]["name"]
        assert loaded[f"{kind}-deployment"]["model"].endswith("build/model")
    assert (ROOT / loaded["online-deployment"]["script"]).exists()
    assert loaded["batch-deployment"]["output_action"] == "append_row"
    # The SDK follows the symbolic links of sam_endpoint/, so an uploaded checkout is importable.
    modules = {f"sam_endpoint/{name}" for name in ("__init__.py", "model/errors.py", "scoring/online/score.py")}
    assert modules <= set(loaded["online-deployment"]["uploaded"])


def test_kserves_container_is_told_what_the_endpoint_knows() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "kserve" / "inference-service.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    known = {f"SAM_{name.upper()}" for name in EndpointSettings.model_fields}
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment.pop("PROTOCOL") == "v2"
    assert set(environment) <= known
    assert int(environment["SAM_PORT"]) == container["ports"][0]["containerPort"]
    for probe, path in (("readinessProbe", "/v2/health/ready"), ("livenessProbe", "/v2/health/live")):
        assert container[probe]["httpGet"] == {"path": path, "port": 8080}


@pytest.mark.parametrize("file", ["Dockerfile", "azureml/Dockerfile"])
def test_what_the_dockerfiles_copy_is_there(file: str) -> None:
    text = (ROOT / "deploy" / file).read_text()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for source in line.split()]
    assert copied and all((ROOT / source).exists() for source in copied)
    known = {f"SAM_{name.upper()}" for name in EndpointSettings.model_fields}
    assert set(re.findall(r"\bSAM_\w+(?==)", text)) <= known
