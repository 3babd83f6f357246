"""Prints the seconds that a table takes on a Spark cluster of WORKERS of one core, the second time:
`python -m benchmarks.on_spark MODEL TABLE WORKERS`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from pyspark.sql import SparkSession

from model.contract import Params
from scoring.batch import sources, spark

if __name__ == "__main__":
    model, table, workers = sys.argv[1:]
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = SparkSession.builder.master(f"local-cluster[{workers},1,2048]").getOrCreate()
    source, params = sources.find(table), Params(mask_encoding="rle", on_error="record")
    with tempfile.TemporaryDirectory() as folder:
        taken = []
        for turn in range(2):
            began = time.perf_counter()
            spark.run(session, Path(model), params, source, f"{folder}/{turn}")
            taken.append(time.perf_counter() - began)
    session.stop()
    print(taken[-1])
