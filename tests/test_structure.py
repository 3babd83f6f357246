"""Rules for the source code: which package may import which other package, and how long a file may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_code

MAX_LINES = 300
# The packages of this project that each package may import.
MAY_IMPORT = {
    "model": set(),
    "scoring": {"model"},
    "evaluation": {"model", "scoring"},
    "training": {"model", "evaluation", "scoring"},
}


def parse_modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    """Yield each module of a folder and its syntax tree."""
    for file in sorted((ROOT / package).rglob("*.py")):
        yield file, ast.parse(file.read_text(), str(file))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the modules that a module imports absolutely."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_the_packages_that_it_may_import(package: str) -> None:
    for file, tree in parse_modules(package):
        for name in imported_names(tree):
            package_name, _, module_name = name.partition(".")
            assert package_name not in MAY_IMPORT, f"{file}: import it as sam_endpoint.{name}"
            if package_name == "sam_endpoint" and module_name:
                assert package != "model", f"{file}: model imports itself relatively, for it travels under other names"
                assert module_name.split(".")[0] in {package, *MAY_IMPORT[package]}, f"{file}: imports {name}"


def test_relative_imports_of_model_stay_inside_model() -> None:
    for file, tree in parse_modules("model"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level < len(file.relative_to(ROOT).parts), file


def test_in_model_only_its_mlflow_package_imports_mlflow() -> None:
    for file, tree in parse_modules("model"):
        if file.parent.name != "mlflow":
            assert not [name for name in imported_names(tree) if name.partition(".")[0] == "mlflow"], file


def test_no_code_assigns_methods_unwraps_models_or_uses_context_variables() -> None:
    for package in (*MAY_IMPORT, "benchmarks"):
        for file, _ in parse_modules(package):
            text = file.read_text()
            assert "ignore[method-" + "assign]" not in text, file
            assert "unwrap_" + "python_model" not in text, file
            assert "ContextVar" not in text, file


def test_code_outside_model_does_not_access_parts_of_the_engine() -> None:
    for package in ("scoring", "evaluation", "sam_endpoint/commands"):
        for file, _ in parse_modules(package):
            accesses = re.findall(r"\.(?:segmenter\.family|family\.model)\b.*", file.read_text())
            assert not accesses, f"{file}: {accesses}"


def test_no_file_is_longer_than_the_limit() -> None:
    for package in (*MAY_IMPORT, "sam_endpoint/commands", "benchmarks"):
        for file, _ in parse_modules(package):
            assert len(file.read_text().splitlines()) <= MAX_LINES, file


SETTINGS = "gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(), warnings.filters[:], torch.get_num_threads()"


def test_imports_change_no_setting_of_the_process() -> None:
    """The code imports the libraries first, because their own imports add warning filters."""
    code = f"""
import gc, sys, warnings
import torch, mlflow.pyfunc.scoring_server, pandas, fastapi, pyarrow.parquet, fastapi_offline, prometheus_client
import transformers.models.sam.modeling_sam, transformers.models.sam2.modeling_sam2, pydantic_settings, fsspec
import transformers.models.edgetam.modeling_edgetam, transformers.models.sam_hq.modeling_sam_hq, scipy.ndimage
import transformers.models.sam3_tracker.modeling_sam3_tracker, pycocotools.mask, tqdm, cachetools
before = {SETTINGS}
import sam_endpoint.model.mlflow.pyfunc, sam_endpoint.scoring.online.app, sam_endpoint.scoring.batch.job
import sam_endpoint.evaluation.evaluate
assert before == ({SETTINGS}), (before, ({SETTINGS}))
"""
    done = run_code(code)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_engine_does_not_import_mlflow() -> None:
    code = "import sys; import sam_endpoint.model.engine, sam_endpoint.model.saved; sys.exit('mlflow' in sys.modules)"
    assert run_code(code).returncode == 0


def test_the_module_of_errors_imports_neither_torch_nor_numpy() -> None:
    code = "import sys; import sam_endpoint.model.errors; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert run_code(code).returncode == 0
