"""Imports between evaluation and training: training may import parts of evaluation, but not the reverse."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

SHARED = ("sam_endpoint.evaluation.scenes", "sam_endpoint.evaluation.geometry")


def imported_modules(folder: Path) -> set[str]:
    """Return the names of all modules that the code in a folder imports."""
    trees = [ast.parse(file.read_text()) for file in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_evaluation_does_not_import_training() -> None:
    assert not [name for name in imported_modules(ROOT / "evaluation") if name.startswith("sam_endpoint.training")]


def test_training_imports_only_scenes_and_geometry_of_evaluation() -> None:
    names = [name for name in imported_modules(ROOT / "training") if name.startswith("sam_endpoint.evaluation")]
    assert names and set(names) <= set(SHARED)
