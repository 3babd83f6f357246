"""Imports between evaluation and training: training may import parts of evaluation, but not the reverse.

Fine-tuning evaluates its models, so it may import all of evaluation.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import ROOT

SHARED = tuple(f"sam_endpoint.evaluation.{name}" for name in ("scenes", "clips.clip", "geometry", "coco"))


def imported_modules(folder: Path, excluded: str = "") -> set[str]:
    """Return the names of all modules that the code in a folder imports, without that of an excluded subfolder."""
    files = [file for file in folder.rglob("*.py") if excluded not in file.relative_to(folder).parts[:-1]]
    trees = [ast.parse(file.read_text()) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_evaluation_does_not_import_training() -> None:
    assert not [name for name in imported_modules(ROOT / "evaluation") if name.startswith("sam_endpoint.training")]


def test_training_imports_only_the_images_and_geometry_of_evaluation() -> None:
    modules = imported_modules(ROOT / "training", excluded="finetune")
    names = [name for name in modules if name.startswith("sam_endpoint.evaluation")]
    assert names and all(name.startswith(SHARED) for name in names)
