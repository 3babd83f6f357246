"""Fixtures for tests of the endpoint and of its page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from playwright.sync_api import Browser, Page

from sam_endpoint.model.mlflow import package
from tests.conftest import serve_endpoint
from tests.scoring.online.browser import chromium, open_page
from tests.scoring.online.endpoint import KEY, OTHER_KEY


@pytest.fixture(scope="module")
def keyed_url(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an endpoint with two models, two keys and public metrics, and return its URL."""
    folder = tmp_path_factory.mktemp("endpoint")
    sam2_names = [f"sam2/hiera_{size}" for size in ("tiny", "small", "b_plus", "large")]
    catalog = {
        "default": "disc-finder",
        "models": {
            "disc-finder": {"model": str(packaged), "stands_in_for": ["sam/vit_b", "sam/vit_h"]},
            "second-finder": {"checkpoint": str(package.EMBEDDED_SAM2), "stands_in_for": sam2_names},
        },
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))
    (folder / "keys").write_text(f"{KEY}\n{OTHER_KEY}\n")
    options = ["--catalog", folder / "catalog.yaml", "--api-keys-file", folder / "keys", "--prompts", "50"]
    options += ["--body-bytes", "9000000", "--public-metrics", "true"]
    with serve_endpoint(folder / "log", *options) as url:
        yield url


@pytest.fixture(scope="module")
def picture(disc: tuple[bytes, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PNG file of the disc."""
    file = tmp_path_factory.mktemp("pictures") / "disc.png"
    file.write_bytes(disc[0])
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a headless Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """Open the page of the endpoint that the test module runs as `url`."""
    with open_page(browser, url, permissions=["clipboard-write"]) as page:
        yield page
