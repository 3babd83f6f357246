"""The entry script of an Azure ML batch deployment: `init()` once a process, `run(mini_batch)` for some files each.

Without it, Azure feeds the MLflow model itself with the rows of CSV files; with it, files may also be parquet tables,
JSON lines and images, rows of one image are scored together, and a bad row costs nothing but itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Azure's runner loads this file by its path, and the project may be an uploaded checkout that is not installed. The
# folder that holds the package is the top of a checkout, or site-packages.
sys.path.insert(0, next(str(up) for up in Path(__file__).resolve().parents if (up / "sam_endpoint").is_dir()))

import pandas as pd

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.params import ORIENTATIONS, Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring import azure
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.answers import NamedImages, name_of, read_rows
from sam_endpoint.scoring.batch.job import score_chunks
from sam_endpoint.scoring.batch.sources.listing import is_hidden
from sam_endpoint.scoring.runtime import open_model

ROWS_AT_ONCE = 256
UNREAD_FOLDERS = (".ipynb_checkpoints", "_temporary", "_delta_log")
OUTPUT = ("file", "row", "image", "image_id", "error", "predictions")
ScoredRow = tuple[str, int, str | None, str | None, str | None, str]
scorer: Scorer
params: dict[str, Params]  # by the orientation that a source has by default
noted: set[str] = set()  # notes that are written once a process


def init() -> None:
    """Open the MLflow model in `AZUREML_MODEL_DIR` or in a folder below it. `SCORING_PARAMS` holds params as JSON."""
    global scorer, params
    model = open_model(azure.model_folder(), local_paths=True)
    values = {"mask_encoding": "rle", **json.loads(os.environ.get("SCORING_PARAMS", "{}")), "on_error": "record"}
    params = {choice: model.defaults.read({"orientation": choice, **values}) for choice in ORIENTATIONS}
    scorer = Scorer(model.engine)


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Return one row for each row of the files, with `predictions` as JSON text.

    A file that cannot be read, or not to its end, adds a row with its error. Hidden files are passed over.
    """
    rows: list[ScoredRow] = []
    for file in mini_batch:
        path = Path(file)
        if is_hidden(path.name) or path.parent.name in UNREAD_FOLDERS:
            continue
        count = 0
        try:
            for row in _score(file):
                rows.append(row)
                count += 1
        except BadData as error:
            rows.append((path.name, count, None, None, str(error), "[]"))
    return pd.DataFrame(rows, columns=list(OUTPUT))


def _score(file: str) -> Iterator[ScoredRow]:
    source = sources.find(file)
    source.check()
    _tell(source.notes)
    named, first = NamedImages(), 0
    for table in source.windows(ROWS_AT_ONCE):
        values = params[source.orientation]
        index = range(first, first + len(table))
        rows = list(named.resolve(read_rows(scorer, table, index, values), first))
        answers = {}
        for chunk in score_chunks(scorer, rows, values, source, named):
            answers.update(chunk)
        images = table["image"].to_pylist() if "image" in table.column_names else [None] * len(table)
        for position, image in enumerate(images):
            answer = answers[position]
            predictions = json.dumps(answer["predictions"])
            name = Path(file).name
            yield name, index[position], name_of(image), answer["image_id"], answer["error"], predictions
        first += len(table)


def _tell(notes: list[str]) -> None:
    """Write notes to the log, each once a process."""
    for note in notes:
        if note not in noted:
            noted.add(note)
            print(note, file=sys.stderr)
