"""Fixtures for the tests that put a marker into requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import serve_endpoint
from tests.reliability.markers import MARKER


@pytest.fixture(scope="module")
def logged_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run an endpoint with the embedded models, and return its URL and its log."""
    log = tmp_path_factory.mktemp("markers") / "log"
    # With `--points 10`, the endpoint rejects requests that segment everything in an image. These requests would take
    # seconds, and have no further place for the marker.
    with serve_endpoint(log, "--fetch-seconds", "0.5", "--points", "10") as url:
        yield url, log


@pytest.fixture
def url(logged_endpoint: tuple[str, Path]) -> Iterator[str]:
    """Return the URL of the endpoint, and check after the test that the log does not contain the marker."""
    url, log = logged_endpoint
    start = log.stat().st_size
    yield url
    written = log.read_text()[start:].lower()
    assert MARKER.lower() not in written, written[max(0, written.index(MARKER.lower()) - 500) :][:1000]
