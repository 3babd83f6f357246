"""Fixtures for tests of batch jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve images, of which 07.png is broken, into a folder and a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i in range(12):
        file = folder / ("more" if i % 3 == 0 else "") / f"{i:02}.png"
        file.write_bytes(pictures.disc(150 + i, 130)[0] if i != 7 else b"broken")
    return folder
