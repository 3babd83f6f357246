"""Test processes that run side by side share the cores, and so do the servers and commands that they start.

This stands here because it must be read before torch, which asks for its number of threads once, when it is loaded.
"""

import os

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
if WORKERS:
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // WORKERS))
