"""The examples in the docstrings of `model` and of the commands run."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.conftest import ROOT

MODULES = [
    ".".join(("sam_endpoint", *file.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__")
    for folder, pattern in ((".", "model/**/*.py"), ("sam_endpoint", "commands/*.py"))
    for file in sorted((ROOT / folder).glob(pattern))
    if ">>> " in file.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_the_results_that_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed
