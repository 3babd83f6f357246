"""The layout's rules, checked on the source: which way imports run, who may know what, and how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAX_LINES = 300
# Each package, and the packages of this project that it may import.
MAY_IMPORT = {
    "model": set(),
    "scoring": {"model"},
    "evaluation": {"model", "scoring"},
    "training": {"model", "evaluation", "scoring"},
}


def modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted((ROOT / package).rglob("*.py")):
        yield file, ast.parse(file.read_text(), str(file))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    for file, tree in modules(package):
        for name in imported(tree):
            top, _, rest = name.partition(".")
            assert top not in MAY_IMPORT, f"{file}: import it as sam_endpoint.{name}"
            if top == "sam_endpoint" and rest:
                assert package != "model", f"{file}: model imports itself relatively, for it travels under other names"
                assert rest.split(".")[0] in {package, *MAY_IMPORT[package]}, f"{file}: imports {name}"


def test_model_imports_nothing_above_itself() -> None:
    for file, tree in modules("model"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level < len(file.relative_to(ROOT).parts), file


def test_only_the_mlflow_package_of_model_imports_mlflow() -> None:
    for file, tree in modules("model"):
        if file.parent.name != "mlflow":
            assert not [name for name in imported(tree) if name.partition(".")[0] == "mlflow"], file


def test_no_method_is_assigned_and_no_python_model_is_unwrapped() -> None:
    for package in (*MAY_IMPORT, "benchmarks"):
        for file, _ in modules(package):
            text = file.read_text()
            assert "ignore[method-" + "assign]" not in text, file
            assert "unwrap_" + "python_model" not in text, file
            assert "ContextVar" not in text, file


def test_nothing_outside_model_reaches_through_the_engine() -> None:
    for package in ("scoring", "evaluation", "sam_endpoint/commands"):
        for file, _ in modules(package):
            reaching = re.findall(r"\.(?:segmenter\.family|family\.model)\b.*", file.read_text())
            assert not reaching, f"{file}: {reaching}"


def test_files_are_short() -> None:
    for package in (*MAY_IMPORT, "sam_endpoint/commands", "benchmarks"):
        for file, _ in modules(package):
            assert len(file.read_text().splitlines()) <= MAX_LINES, file


STATE = "gc.isenabled(), gc.get_freeze_count(), gc.get_threshold(), warnings.filters[:], torch.get_num_threads()"


def test_importing_changes_no_setting_of_the_process() -> None:
    """The libraries are imported before, since their own imports add warning filters."""
    code = f"""
import gc, sys, warnings
import torch, mlflow.pyfunc.scoring_server, pandas, fastapi, pyarrow.parquet, fastapi_offline, prometheus_client
import transformers.models.sam.modeling_sam, transformers.models.sam2.modeling_sam2, pydantic_settings, fsspec
import transformers.models.edgetam.modeling_edgetam, transformers.models.sam_hq.modeling_sam_hq, scipy.ndimage
import transformers.models.sam3_tracker.modeling_sam3_tracker, pycocotools.mask, tqdm, cachetools
before = {STATE}
import sam_endpoint.model.mlflow.pyfunc, sam_endpoint.scoring.online.app, sam_endpoint.scoring.batch.job
import sam_endpoint.evaluation.evaluate
assert before == ({STATE}), (before, ({STATE}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_engine_works_in_a_process_that_knows_no_mlflow() -> None:
    code = "import sys; import sam_endpoint.model.engine, sam_endpoint.model.saved; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_errors_are_cheap_to_import() -> None:
    code = "import sys; import sam_endpoint.model.errors; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
