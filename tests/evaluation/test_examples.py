"""The examples in the docstrings of `evaluation` run and return the documented results."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from sam_endpoint.evaluation import evaluate, geometry, ground_truth, metrics, protocol, report
from sam_endpoint.evaluation.scenes import scene


@pytest.mark.parametrize(
    "module", [evaluate, geometry, ground_truth, metrics, protocol, report, scene], ids=lambda module: module.__name__
)
def test_examples_return_the_documented_results(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed
