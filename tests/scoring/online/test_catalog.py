"""The catalog of models: their names, loading on first use, and eviction when memory is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sam_endpoint.model.errors import UnknownModel
from sam_endpoint.model.mlflow import package
from sam_endpoint.scoring.online.catalog import Catalog
from sam_endpoint.scoring.online.catalog_file import WELL_KNOWN
from sam_endpoint.scoring.online.settings import DEFAULT_CATALOG, EndpointSettings


def catalog_of(folder: Path, content: Any, **settings: Any) -> Catalog:
    """Write a catalog file, and return the catalog."""
    file = folder / "catalog.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Catalog(EndpointSettings(catalog=file, **settings))


@pytest.fixture
def catalog_of_three(sam_folder: Path, sam2_folder: Path, tmp_path: Path) -> Catalog:
    """Return a catalog of three models, of which two fit into memory."""
    models = {
        "first": {"checkpoint": str(package.EMBEDDED), "names": ["one"]},
        "second": {"checkpoint": str(sam_folder)},
        "third": {"checkpoint": str(sam2_folder), "warm": True, "stands_in_for": ["sam2/hiera_tiny"]},
    }
    return catalog_of(tmp_path, {"default": "first", "models": models}, model_bytes=16_300_000)


def warm_models(catalog: Catalog) -> list[str]:
    """Return the names of the models that are loaded."""
    return [str(model["name"]) for model in catalog.describe() if model["warm"]]


def test_a_model_is_loaded_on_first_use_of_one_of_its_names(catalog_of_three: Catalog) -> None:
    assert warm_models(catalog_of_three) == [] and not catalog_of_three.ready
    catalog_of_three.warm_up()
    assert warm_models(catalog_of_three) == ["first", "third"] and catalog_of_three.ready
    assert catalog_of_three.get().name == catalog_of_three.get("one").name == "first"
    assert catalog_of_three.get("sam2/hiera_tiny").name == "third" and catalog_of_three.get("second").name == "second"
    assert catalog_of_three.name_for_family("sam") == "first" and catalog_of_three.name_for_family("sam2") == "third"
    message = r"\(text of 1 characters\) is served here; this endpoint serves first, one, second"
    with pytest.raises(UnknownModel, match=message):
        catalog_of_three.get("x")


def test_evicts_the_least_recently_used_model_when_memory_is_full(catalog_of_three: Catalog) -> None:
    catalog_of_three.warm_up()
    held = catalog_of_three.get("third")
    catalog_of_three.get("second")  # the three models together are larger than the memory for models
    assert warm_models(catalog_of_three) == ["first", "second"]
    assert held.engine.family == "sam2"  # an evicted model stays usable for its current users
    catalog_of_three.get("third")
    assert warm_models(catalog_of_three) == ["first", "third"]


def test_a_model_that_cannot_be_loaded_does_not_affect_the_others(tmp_path: Path) -> None:
    models = {"good": {"checkpoint": str(package.EMBEDDED)}, "bad": {"checkpoint": str(tmp_path), "warm": True}}
    catalog = catalog_of(tmp_path, {"default": "good", "models": models})
    catalog.warm_up()
    assert not catalog.ready and warm_models(catalog) == ["good"]
    with pytest.raises(ValueError, match="no transformers model found there"):
        catalog.get("bad")


def test_the_default_catalog_has_the_model_names_of_known_clients() -> None:
    catalog = Catalog(EndpointSettings())
    assert DEFAULT_CATALOG.exists() and set(WELL_KNOWN["sam"]) <= set(catalog.names)
    assert set(WELL_KNOWN["sam2"]) <= set(catalog.names)
    assert catalog.get("sam/vit_b").name == "sam-tiny"
    assert catalog.get("facebook/sam2.1-hiera-large").name == "sam2-tiny"


BAD_CATALOGS = [
    ("default: [", "catalog .*catalog.yaml"),
    ({"default": "a", "models": {}}, "default 'a' is not among the models"),
    ({"default": "a", "models": {"a": {}}}, "expected one of `checkpoint` and `model`"),
    ({"default": "a", "models": {"a": {"checkpoint": "x", "color": 1}}}, "color"),
    (
        {
            "default": "a",
            "models": {"a": {"checkpoint": "x", "names": ["n"]}, "b": {"checkpoint": "y", "names": ["n"]}},
        },
        "'n' is a name of two models, a and b",
    ),
]


@pytest.mark.parametrize(("content", "message"), BAD_CATALOGS, ids=[message[:20] for _, message in BAD_CATALOGS])
def test_rejects_malformed_catalogs(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        catalog_of(tmp_path, content)
