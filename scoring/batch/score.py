"""The entry script of an Azure ML batch deployment: `init()` once a process, `run(mini_batch)` for some files each.

Without it, Azure feeds the MLflow model itself with the rows of CSV files; with it, files may also be parquet tables,
JSON lines and images, rows of one image are scored together, and a bad row costs nothing but itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# Azure's runner loads this file by its path, and the project may be an uploaded checkout that is not installed. The
# folder that holds the package is the top of a checkout, or site-packages.
sys.path.insert(0, next(str(up) for up in Path(__file__).resolve().parents if (up / "sam_endpoint").is_dir()))

import pandas as pd

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring import azure
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.job import frame, name_of
from sam_endpoint.scoring.runtime import open_model

ROWS_AT_ONCE = 256
OUTPUT = ("file", "row", "image", "image_id", "error", "predictions")
ScoredRow = tuple[str, int, str | None, str | None, str | None, str]
scorer: Scorer
params: Params


def init() -> None:
    """Open the MLflow model in `AZUREML_MODEL_DIR` or in a folder below it. `SCORING_PARAMS` holds params as JSON."""
    global scorer, params
    model = open_model(azure.model_folder(), local_paths=True)
    values = {"mask_encoding": "rle", **json.loads(os.environ.get("SCORING_PARAMS", "{}")), "on_error": "record"}
    scorer, params = Scorer(model.engine), model.defaults.read(values)


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Return one row for each row of the files, with `predictions` as JSON text.

    A file that is not a table is represented by one row with its error.
    """
    rows: list[ScoredRow] = []
    for file in mini_batch:
        try:
            rows += _score(file)
        except BadData as error:
            rows.append((Path(file).name, 0, None, None, str(error), "[]"))
    return pd.DataFrame(rows, columns=list(OUTPUT))


def _score(file: str) -> list[ScoredRow]:
    scored: list[ScoredRow] = []
    source = sources.find(file)
    source.check()
    for table in source.windows(ROWS_AT_ONCE):
        rows = frame(table, len(scored))
        for index, answer in zip(rows.index, scorer.score(scorer.read(rows), params), strict=True):
            image = name_of(rows["image"][index]) if "image" in rows else None
            predictions = json.dumps(answer["predictions"])
            scored.append((Path(file).name, int(index), image, answer["image_id"], answer["error"], predictions))
    return scored
