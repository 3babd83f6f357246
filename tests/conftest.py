"""What the tests share: small re-initialised checkpoints, the embedded one packaged once, pictures, servers."""

from __future__ import annotations

import contextvars
import io
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from mlflow.pyfunc import PyFuncModel, load_model
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from tests import checkpoints, pictures
from tests.model import metas_own

ROOT = Path(__file__).resolve().parent.parent

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

os.environ["HF_HUB_OFFLINE"] = "1"
# Spark's processes live for seconds: Java's second compiler and its parallel collector cost more than they save.
os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
NAMES = ("spark", "docs", "reliability", "attacks", "everything", "evaluate", "faults", "label_studio")
LONGEST = [f"test_{name}.py" for name in NAMES]


# First, for pytest-xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one process, which makes their fixtures once; the docs' pages are long and run apart. What
    takes longest begins first, so that nothing is left to run alone in the end."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order) + (item.path.suffix != ".ipynb")))
    for item in items:
        group = item.nodeid if item.path.name == "test_docs.py" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAM with drawn weights."""
    return checkpoints.save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAM2 with drawn weights."""
    return checkpoints.save_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="session")
def metas_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small SAM and a SAM 2.1 in files like Meta's, and what Meta's code answers with them."""
    folder = tmp_path_factory.mktemp("meta")
    for kind in ("sam", "sam2"):
        metas_own.run("answers", kind, folder)
    return folder


@pytest.fixture(scope="session")
def tiny() -> Segmenter:
    """The embedded default checkpoint."""
    return Segmenter.load(str(package.EMBEDDED), "cpu")


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded default checkpoint as an MLflow model."""
    return package.save(package.EMBEDDED, tmp_path_factory.mktemp("packaged") / "model")


@pytest.fixture(scope="session")
def pyfunc(packaged: Path) -> PyFuncModel:
    return load_model(str(packaged))


@pytest.fixture(scope="session")
def disc() -> tuple[bytes, np.ndarray]:
    """A picture with one plain disc, as PNG bytes, and the disc's true mask."""
    return pictures.disc()


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """The sample photograph of a cup, large enough for the coordinates of Azure's own sample."""
    image = Image.open(ROOT / "samples" / "coffee.jpg").resize((900, 600))
    return pictures.to_bytes(image, "JPEG")


def run_here(main: Callable[[list[str]], int | None], *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command's `main` without a process of its own, which takes seconds to start."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = contextvars.copy_context().run(main, [str(one) for one in arguments]) or 0
        except SystemExit as left:  # argparse's way out
            code = int(left.code or 0)
    return subprocess.CompletedProcess([], code, out.getvalue(), err.getvalue())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(command: list[str], port: int, path: str, log: Path, **environment: str) -> Iterator[str]:
    """Runs a server as a process of its own until the block ends; gives its base URL once `path` answers."""
    url = f"http://127.0.0.1:{port}"
    # Scripts of this environment are found beside its python, whether or not it is activated.
    path_variable = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path_variable, **environment},
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(url + path, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, f"the server stopped:\n{log.read_text()[-4000:]}"
                assert time.monotonic() < deadline, f"the server did not answer:\n{log.read_text()[-4000:]}"
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
