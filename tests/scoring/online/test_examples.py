"""The examples in the docstrings of the endpoint run."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from sam_endpoint.scoring import polygons
from sam_endpoint.scoring.online import batching, catalog_file, context, dialects
from sam_endpoint.scoring.online.dialects import base
from sam_endpoint.scoring.online.dialects.roboflow import responses
from sam_endpoint.scoring.online.middleware import auth

MODULES = [auth, base, batching, catalog_file, context, dialects, polygons, responses]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_give_the_results_that_they_show(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed
