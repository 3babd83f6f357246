"""The README and the pages of docs/: every snippet runs, in the order of the page, and every link has a target.

Snippets of the README use the real `python` and `sam-endpoint`. Snippets of docs/ use executables that start faster.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkpoints, detectors, warm
from tests.conftest import ROOT, free_port

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def clone(packaged: Path, metas_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder like a clone of the project after `make score`.

    Small checkpoints replace the checkpoints that a reader has to download.
    """
    folder = tmp_path_factory.mktemp("clone")
    for name in (
        "sam_endpoint",
        "model",
        "scoring",
        "evaluation",
        "training",
        "samples",
        "checkpoints",
        "deploy",
        "benchmarks",
    ):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(packaged, folder / "build" / "model")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "sam2.1_hiera_tiny.pt").symlink_to(metas_files / "sam2.pth")
    (folder / "detector").mkdir()
    detectors.grounding_dino(folder / "detector")
    return folder


@pytest.fixture(scope="module")
def hub(sam_folder: Path, sam2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders that replace checkpoints, by their ids on the Hub."""
    sam3 = checkpoints.save_sam3_video(tmp_path_factory.mktemp("sam3"))
    return {
        "facebook/sam-vit-large": sam_folder,
        "facebook/sam2.1-hiera-large": sam2_folder,
        "facebook/sam3": sam3,
        "IDEA-Research/grounding-dino-tiny": Path("detector"),
    }


def runnable(text: str, hub: dict[str, Path]) -> str:
    """Return a snippet in which folders replace the ids of checkpoints on the Hub, and free ports the port numbers."""
    for hub_id, local in hub.items():
        text = text.replace(hub_id, str(local))
    for port in set(re.findall(r"\b500\d\b", text)):
        text = text.replace(port, str(free_port()))
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_of_a_page_runs(page: Path, clone: Path, hub: dict[str, Path]) -> None:
    blocks = BLOCK.findall(page.read_text())
    python = sys.executable if page.name == "README.md" else warm.python()
    path = os.pathsep.join([str(Path(python).parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": python}
    for language, text in blocks:
        program = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [python, "-c"]
        with (clone / "output").open("w+") as output:
            process = subprocess.Popen(
                [*program, runnable(text, hub)],
                cwd=clone,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(240)
            finally:
                # This also ends the servers that the snippet started in the background.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            assert code == 0, f"{page.name}:\n{text}\n{output.read()[-4000:]}"


def test_the_readme_has_under_150_lines_and_every_link_has_a_target() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
