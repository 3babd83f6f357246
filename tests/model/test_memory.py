"""Freed memory is kept for later operators, up to a limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Prints the page faults of allocating a thousand times four blocks of 4 MiB.
CODE = """
import resource, runpy, numpy as np
keep_freed_memory = runpy.run_path("model/memory.py")["keep_freed_memory"]
print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    blocks = [np.ones(2**19) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_reused() -> None:
    def run(**environment: str) -> tuple[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
        )
        setting, faults = done.stdout.split()
        return setting, int(faults)

    assert run(MALLOC_ARENA_MAX="8")[0] == "False"
    setting, faults = run()
    assert setting == "True" and faults < 100_000  # a few thousand, rather than a few million
