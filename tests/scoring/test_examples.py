"""The examples in the docstrings of `scoring` run and return the documented results."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "azure",
    "json_text",
    "runtime",
    "tables",
    "tenants",
    "batch.answers",
    "batch.boxes",
    "batch.boxes.matching",
    "batch.detectors",
    "batch.export",
    "batch.files",
    "batch.label_names",
    "batch.labels",
    "batch.locations",
    "batch.progress",
    "batch.sources.column_types",
    "batch.sources.source",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_return_the_documented_results(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"sam_endpoint.scoring.{name}"))
    assert outcome.attempted and not outcome.failed
