"""Runs scripts that use published clients of other systems, each in the virtual environment of its client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def client_python(environment: str) -> Path:
    """Return the Python of the environment `.venv/<environment>`, which `make .venv/test` installs."""
    return Path(sys.prefix) / environment / "bin" / "python"


def run_client(environment: str, script: str, *arguments: object, **variables: str) -> Any:
    """Run a script of this folder and return the JSON in the last line that it prints.

    Args:
        environment: name of the virtual environment.
        script: file name of the script.
        arguments: its arguments.
        variables: environment variables that it gets.
    """
    command = [str(client_python(environment)), str(Path(__file__).parent / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
