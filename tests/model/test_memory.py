"""The memory allocator keeps freed memory for later operators, up to a limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Allocates four blocks of 4 MiB a thousand times, and prints the number of page faults.
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
def test_later_allocations_reuse_freed_memory() -> None:
    def run(**environment: str) -> tuple[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
        )
        setting, faults = done.stdout.split()
        return setting, int(faults)

    assert run(MALLOC_ARENA_MAX="8")[0] == "False"
    setting, faults = run()
    assert setting == "True" and faults < 100_000  # without the setting, there are a few million
