"""Tests. This module divides the processor cores among the processes of pytest-xdist and the servers that they start.

The code is in this module because it must run before torch is imported: torch reads OMP_NUM_THREADS only once.
"""

import os

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
if WORKERS:
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // WORKERS))
