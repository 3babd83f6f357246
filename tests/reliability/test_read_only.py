"""Tests of the endpoint on a read-only root file system, without a folder for temporary files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image

from tests import pictures
from tests.conftest import ROOT, free_port, server

# `/dev/shm` stays writable, as in containers with a read-only root.
MOUNT = (
    "mount --make-rprivate / && mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp && mount -o remount,bind,ro / "
    '&& cd / && exec "$@"'
)


@pytest.fixture(scope="module")
def read_only(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("only root may mount the root read-only")
    folder, port = tmp_path_factory.mktemp("read-only"), free_port()
    serve = [sys.executable, "-m", "sam_endpoint", "serve", "--port", str(port), "--model", str(packaged)]
    serve += ["--embedding-store", str(folder / "store")]
    command = ["env", "-u", "TORCHINDUCTOR_CACHE_DIR", "unshare", "-m", "sh", "-c", MOUNT, "sh", *serve]
    with server(command, port, "/ready", folder / "log", PYTHONPATH=str(ROOT)) as url:
        yield url
        log = (folder / "log").read_text().splitlines()
        assert sum("cannot read or write the embedding store" in line for line in log) == 1


def test_tables_are_scored(read_only: str) -> None:
    table = pa.table({"image": [pictures.disc()[0]], "input_points": ["[[[110, 80]]]"]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    body: Any = {"input_data": [{"image": pictures.to_text(pictures.disc()[0]), "input_points": [[[110, 80]]]}]}
    answers = [
        requests.post(f"{read_only}/score", json=body, timeout=60),
        requests.post(
            f"{read_only}/invocations",
            data=buffer.getvalue(),
            headers={"content-type": "application/vnd.apache.parquet"},
            timeout=60,
        ),
    ]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_large_forms_are_not_written_to_a_disk(read_only: str) -> None:
    picture = pictures.to_bytes(Image.effect_noise((1200, 1200), 90).convert("RGB"))
    assert len(picture) > 2**20  # larger parts of a form go to a temporary file by default
    files = {"image": ("a.png", picture)}
    fields = {"point_coords": "[[110, 80]]", "point_labels": "[1]"}
    answer = requests.post(f"{read_only}/segment-anything-2", files=files, data=fields, timeout=60)
    assert answer.status_code == 200, answer.text[:300]
