"""Schemathesis generates requests for every route from the endpoint's OpenAPI description, and sends them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.reliability.traffic import endpoint

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "5")


def test_no_generated_request_causes_a_server_error(tmp_path: Path) -> None:
    # Few points, because requests without prompts would segment everything in an image, which takes seconds each.
    with endpoint(tmp_path / "log", "--urls", "false", "--points", "256") as (host, port, process):
        command = ["-m", "schemathesis.cli", "run", f"http://{host}:{port}/openapi.json", "--max-examples", EXAMPLES]
        command += ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing", "--seed", "1"]
        done = subprocess.run(
            [sys.executable, *command, "--request-timeout", "60"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert process.poll() is None
    assert "Traceback" not in (tmp_path / "log").read_text()
