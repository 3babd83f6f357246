"""The files in deploy/: Azure's SDK accepts them, and they agree with the settings and files of this project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sam_endpoint.scoring.online.settings import EndpointSettings
from tests.conftest import ROOT, run_with_clients


@pytest.fixture(scope="module")
def azure_entities(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return what Azure's SDK loads from deploy/azureml, in a copy of the checkout with a packaged model."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("deploy", "scoring", "model", "sam_endpoint"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    shutil.copytree(packaged, folder / "build" / "model")
    script = Path(__file__).with_name("azure_load.py")
    entities: dict[str, dict[str, Any]] = run_with_clients(script, folder / "deploy" / "azureml")
    return entities


def test_azures_sdk_loads_consistent_endpoints_and_deployments(azure_entities: dict[str, dict[str, Any]]) -> None:
    assert {name: entity["type"] for name, entity in azure_entities.items()} == {
        "environment": "Environment",
        "online-endpoint": "ManagedOnlineEndpoint",
        "online-deployment": "ManagedOnlineDeployment",
        "batch-endpoint": "BatchEndpoint",
        "batch-deployment": "BatchDeployment",
    }
    for kind in ("online", "batch"):
        assert azure_entities[f"{kind}-deployment"]["endpoint_name"] == azure_entities[f"{kind}-endpoint"]["name"]
        assert azure_entities[f"{kind}-deployment"]["model"].endswith("build/model")
    assert (ROOT / azure_entities["online-deployment"]["script"]).exists()
    assert azure_entities["batch-deployment"]["output_action"] == "append_row"
    # The SDK follows the symbolic links in sam_endpoint/, so the uploaded code can be imported.
    modules = {f"sam_endpoint/{name}" for name in ("__init__.py", "model/errors.py", "scoring/online/score.py")}
    assert modules <= set(azure_entities["online-deployment"]["uploaded"])


def test_the_kserve_container_uses_settings_and_routes_of_the_endpoint() -> None:
    service = yaml.safe_load((ROOT / "deploy" / "kserve" / "inference-service.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    settings = {f"SAM_{name.upper()}" for name in EndpointSettings.model_fields}
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment.pop("PROTOCOL") == "v2"
    assert set(environment) <= settings
    assert int(environment["SAM_PORT"]) == container["ports"][0]["containerPort"]
    for probe, path in (("readinessProbe", "/v2/health/ready"), ("livenessProbe", "/v2/health/live")):
        assert container[probe]["httpGet"] == {"path": path, "port": 8080}


@pytest.mark.parametrize("file", ["Dockerfile", "azureml/Dockerfile"])
def test_dockerfiles_copy_existing_files_and_set_settings_of_the_endpoint(file: str) -> None:
    text = (ROOT / "deploy" / file).read_text()
    copied = [source for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for source in line.split()]
    assert copied and all((ROOT / source).exists() for source in copied)
    settings = {f"SAM_{name.upper()}" for name in EndpointSettings.model_fields}
    assert set(re.findall(r"\bSAM_\w+(?==)", text)) <= settings
