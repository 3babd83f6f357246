"""Fixtures and helpers for all tests: checkpoints, the packaged model, images, commands and servers."""

from __future__ import annotations

import contextvars
import io
import json
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
from typing import Any, TypeAlias

import numpy as np
import pytest
from mlflow.pyfunc import PyFuncModel, load_model
from PIL import Image

from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from tests import checkpoints, pictures, warm
from tests.model import metas_own

ROOT = Path(__file__).resolve().parent.parent

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

os.environ["HF_HUB_OFFLINE"] = "1"
# Spark's processes live for seconds only. For so short a time, Java's optimising compiler and its parallel garbage
# collector cost more than they save.
os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
NAMES = ("spark", "docs", "reliability", "attacks", "everything", "evaluate", "faults", "label_studio")
SLOWEST = [f"test_{name}.py" for name in NAMES]


# `tryfirst`, because pytest-xdist reads the groups in its own implementation of this hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Distribute the tests over the processes of pytest-xdist.

    All tests of a file run in the same process, which therefore creates the file's fixtures once. Each page of the
    docs is a group of its own, because a page takes long. The slowest files start first, then the notebooks, so that
    no long test runs alone at the end.
    """
    ranks = {name: rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks) + (item.path.suffix != ".ipynb")))
    for item in items:
        group = item.nodeid if item.path.name == "test_docs.py" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small SAM with random weights, and return its folder."""
    return checkpoints.save_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small SAM 2 with random weights, and return its folder."""
    return checkpoints.save_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="session")
def metas_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with checkpoint files in Meta's format, and the results of Meta's code for them.

    The checkpoints `sam.pth` and `sam2.pth` are a small SAM and a SAM 2.1 with random weights. `sam.npz` and
    `sam2.npz` hold an image, a click, and the logits and scores that Meta's code computes.
    """
    folder = tmp_path_factory.mktemp("meta")
    for kind in ("sam", "sam2"):
        metas_own.run_metas_code("answers", kind, folder)
    return folder


@pytest.fixture(scope="session")
def tiny() -> Segmenter:
    """Load the default starter checkpoint, sam-tiny."""
    return Segmenter.load(str(package.EMBEDDED), "cpu")


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Package the default starter checkpoint as an MLflow model, and return its folder."""
    return package.save(package.EMBEDDED, tmp_path_factory.mktemp("packaged") / "model")


@pytest.fixture(scope="session")
def pyfunc(packaged: Path) -> PyFuncModel:
    """Load the packaged model with MLflow."""
    return load_model(str(packaged))


@pytest.fixture(scope="session")
def disc() -> tuple[bytes, np.ndarray]:
    """Return an image of a disc as PNG bytes, and the true mask of the disc, (160, 240) bool."""
    return pictures.disc()


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """Return the sample photograph of a cup as JPEG bytes, enlarged to contain the coordinates of Azure's sample."""
    image = Image.open(ROOT / "samples" / "coffee.jpg").resize((900, 600))
    return pictures.to_bytes(image, "JPEG")


def run_here(main: Callable[[list[str]], int | None], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the `main` function of a command in this process, because a new process takes seconds to start.

    Args:
        main: function that takes the command's arguments and returns its exit status, None for 0.
        *arguments: arguments of the command; each is converted to text.

    Returns:
        The exit status, standard output and standard error, as `subprocess.run` returns them.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = contextvars.copy_context().run(main, [str(argument) for argument in arguments]) or 0
        except SystemExit as stop:  # argparse exits this way
            code = int(stop.code or 0)
    return subprocess.CompletedProcess([], code, out.getvalue(), err.getvalue())


def run_code(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter whose working directory is the root of the repository.

    Args:
        code: source code.
        *arguments: values of `sys.argv[1:]`; each is converted to text.
        **environment: environment variables to add.

    Returns:
        The finished process, with its output as text.
    """
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def client_python(environment: str) -> Path:
    """Return the Python of the virtual environment `.venv/<environment>`, which `make .venv/test` installs."""
    return Path(sys.prefix) / environment / "bin" / "python"


def run_with_clients(script: Path, *arguments: object, environment: str = "clients") -> Any:
    """Run a script in a virtual environment of other projects' packages.

    Args:
        script: file of the script, which prints JSON.
        *arguments: arguments of the script; each is converted to text.
        environment: name of the virtual environment.

    Returns:
        The JSON value that the script prints.
    """
    command = [str(client_python(environment)), str(script), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no process uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(command: list[str], port: int, path: str, log: Path, **environment: str) -> Iterator[str]:
    """Run a server in a process of its own until the block ends.

    Args:
        command: command that starts the server.
        port: port of 127.0.0.1 on which the server listens.
        path: path of a URL that the server answers as soon as it is ready.
        log: file for the output of the server. Its folder is the working directory.
        **environment: environment variables to add.

    Yields:
        The base URL, once `path` answers.
    """
    url = f"http://127.0.0.1:{port}"
    # Scripts of this environment are in the folder of its Python, which is not in PATH if nobody activated it.
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


@contextmanager
def serve_endpoint(
    log: Path, *options: object, program: Sequence[str] = ("-m", "sam_endpoint"), **environment: str
) -> Iterator[str]:
    """Run `sam-endpoint serve` on a free port until the block ends.

    Args:
        log: file for the output of the endpoint. Its folder is the working directory.
        *options: options of `serve`; each is converted to text.
        program: arguments of Python that start `sam-endpoint`.
        **environment: environment variables to add.

    Yields:
        The base URL, once the endpoint is ready.
    """
    port = free_port()
    command = [warm.python(), *program, "serve", "--port", str(port), *map(str, options)]
    with server(command, port, "/ready", log, PYTHONPATH=str(ROOT), **environment) as url:
        yield url
