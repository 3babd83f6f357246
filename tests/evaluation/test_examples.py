"""The examples in docstrings of the evaluation."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from sam_endpoint.evaluation import geometry
from sam_endpoint.evaluation.scenes import scene


@pytest.mark.parametrize("module", [geometry, scene], ids=lambda module: module.__name__)
def test_examples_return_the_results_that_they_show(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed
