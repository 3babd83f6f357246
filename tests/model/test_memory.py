"""What is freed is kept for the next operator, up to a limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Page faults of a thousand blocks of 4 MiB, of which one is held at a time.
CODE = """
import resource, runpy, numpy as np
keep_freed = runpy.run_path("model/memory.py")["keep_freed"]
print(keep_freed())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    held = [np.ones(2**19) for _ in range(4)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_is_not_asked_for_again_and_again() -> None:
    def run(**environment: str) -> tuple[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
        )
        kept, faults = done.stdout.split()
        return kept, int(faults)

    assert run(MALLOC_ARENA_MAX="8")[0] == "False"
    kept, faults = run()
    assert kept == "True" and faults < 100_000  # some thousands, for some millions without
