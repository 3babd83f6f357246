"""Which model answers to which name, and how many are held at a time."""

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
    file = folder / "catalog.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Catalog(EndpointSettings(catalog=file, **settings))


@pytest.fixture
def three(sam_folder: Path, sam2_folder: Path, tmp_path: Path) -> Catalog:
    models = {
        "first": {"checkpoint": str(package.EMBEDDED), "names": ["one"]},
        "second": {"checkpoint": str(sam_folder)},
        "third": {"checkpoint": str(sam2_folder), "warm": True, "stands_in_for": ["sam2/hiera_tiny"]},
    }
    return catalog_of(tmp_path, {"default": "first", "models": models}, model_bytes=16_300_000)


def warm(catalog: Catalog) -> list[str]:
    return [str(one["name"]) for one in catalog.describe() if one["warm"]]


def test_names_lead_to_models_loaded_on_first_use(three: Catalog) -> None:
    assert warm(three) == [] and not three.ready
    three.warm_up()
    assert warm(three) == ["first", "third"] and three.ready
    assert three.get().name == three.get("one").name == "first"
    assert three.get("sam2/hiera_tiny").name == "third" and three.get("second").name == "second"
    assert three.name_for_family("sam") == "first" and three.name_for_family("sam2") == "third"
    with pytest.raises(
        UnknownModel, match=r"\(text of 1 characters\) is served here; this endpoint serves first, one, second"
    ):
        three.get("x")


def test_the_least_recently_used_goes_when_memory_is_full(three: Catalog) -> None:
    three.warm_up()
    held = three.get("third")
    three.get("second")  # with it the three are larger than the memory for models
    assert warm(three) == ["first", "second"]
    assert held.engine.family == "sam2"  # still usable for who holds it
    three.get("third")
    assert warm(three) == ["first", "third"]


def test_a_model_that_cannot_be_loaded_leaves_the_others(tmp_path: Path) -> None:
    models = {"good": {"checkpoint": str(package.EMBEDDED)}, "bad": {"checkpoint": str(tmp_path), "warm": True}}
    catalog = catalog_of(tmp_path, {"default": "good", "models": models})
    catalog.warm_up()
    assert not catalog.ready and warm(catalog) == ["good"]
    with pytest.raises(ValueError, match="no transformers model found there"):
        catalog.get("bad")


def test_the_default_catalog_answers_to_the_names_clients_ask_for() -> None:
    catalog = Catalog(EndpointSettings())
    assert DEFAULT_CATALOG.exists() and set(WELL_KNOWN["sam"]) <= set(catalog.names)
    assert set(WELL_KNOWN["sam2"]) <= set(catalog.names)
    assert catalog.get("sam/vit_b").name == "sam-tiny"
    assert catalog.get("facebook/sam2.1-hiera-large").name == "sam2-tiny"


WRONG = [
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


@pytest.mark.parametrize(("content", "said"), WRONG, ids=[said[:20] for _, said in WRONG])
def test_wrong_catalogs_are_refused(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        catalog_of(tmp_path, content)
