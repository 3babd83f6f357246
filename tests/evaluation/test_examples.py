"""The examples in the docstrings of `evaluation` run and return the documented results."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from sam_endpoint.evaluation import davis, evaluate, geometry, ground_truth, metrics, protocol, report
from sam_endpoint.evaluation.clips import clip
from sam_endpoint.evaluation.scenes import scene

MODULES = (clip, davis, evaluate, geometry, ground_truth, metrics, protocol, report, scene)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_return_the_documented_results(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed
