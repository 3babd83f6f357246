"""Score a table twice on a local Spark cluster, and print the seconds of the second run.

Usage: python -m benchmarks.on_spark MODEL TABLE WORKERS

Each worker has one core.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import SparkSession

from sam_endpoint.model.params import Params
from sam_endpoint.scoring.batch import sources, spark

if __name__ == "__main__":
    model, table, workers = sys.argv[1:]
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master(f"local-cluster[{workers},1,2048]").getOrCreate()
    source, params = sources.find(table), Params(mask_encoding="rle", on_error="record")
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for turn in range(2):
            started = time.perf_counter()
            spark.run(session, Path(model), params, source, f"{folder}/{turn}")
            seconds.append(time.perf_counter() - started)
    session.stop()
    print(seconds[-1])
