"""The entry script of an Azure ML batch deployment: `init()` once a process, `run(mini_batch)` for some files each.

Without it, Azure feeds the MLflow model itself with the rows of CSV files; with it, files may also be parquet tables,
JSON lines and images, rows of one image are scored together, and a bad row costs nothing but itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Azure's runner loads this file by its path, with nothing of the project importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pandas as pd

from model.contract import Params, read_rows
from model.scorer import Scorer
from scoring import azure, models
from scoring.batch import sources
from scoring.batch.job import frame, name_of

ROWS_AT_ONCE = 256
OUTPUT = ("file", "row", "image", "image_id", "error", "predictions")
scorer: Scorer
params: Params


def init() -> None:
    """Loads the MLflow model in `AZUREML_MODEL_DIR` or in a folder below it. `SCORING_PARAMS`: params as JSON."""
    global scorer, params
    python_model = models.load(azure.model_folder(), local_paths=True).unwrap_python_model()
    given = {"mask_encoding": "rle", **json.loads(os.environ.get("SCORING_PARAMS", "{}")), "on_error": "record"}
    scorer, params = python_model.scorer, Params.read(python_model.with_defaults(given))


def run(mini_batch: list[str]) -> pd.DataFrame:
    """One row for each row of the files, `predictions` as JSON text; one with its error for a file that is no table."""
    rows = []
    for file in mini_batch:
        try:
            rows += _score(file)
        except sources.BadTable as error:
            rows.append((Path(file).name, 0, None, None, str(error), "[]"))
    return pd.DataFrame(rows, columns=list(OUTPUT))


def _score(file: str) -> list[tuple[str, int, str | None, str | None, str | None, str]]:
    found: list[tuple[str, int, str | None, str | None, str | None, str]] = []
    source = sources.find(file)
    source.check()
    for table in source.windows(ROWS_AT_ONCE):
        rows = frame(table, len(found))
        for index, answer in zip(rows.index, scorer.score(read_rows(rows), params), strict=True):
            image = name_of(rows["image"][index]) if "image" in rows else None
            predictions = json.dumps(answer["predictions"])
            found.append((Path(file).name, int(index), image, answer["image_id"], answer["error"], predictions))
    return found
