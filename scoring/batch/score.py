"""Entry script of an Azure ML batch deployment.

Azure ML calls `init()` once per process, then `run(mini_batch)` with paths of input files. Without an entry script,
Azure ML passes the rows of CSV files to the MLflow model. This script has three advantages: input files can also be
Parquet tables, JSON lines and images; rows of the same image are scored together; and a malformed row fails alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Azure ML loads this file by its path, and the project may be uploaded without being installed. This line adds the
# folder that contains the package `sam_endpoint` to the import path.
sys.path.insert(0, next(str(up) for up in Path(__file__).resolve().parents if (up / "sam_endpoint").is_dir()))

import pandas as pd

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.params import ORIENTATIONS, Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring import azure
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.answers import NamedImages, image_name, read_rows
from sam_endpoint.scoring.batch.job import score_chunks
from sam_endpoint.scoring.batch.sources.listing import is_hidden
from sam_endpoint.scoring.runtime import open_model

ROWS_AT_ONCE = 256
UNREAD_FOLDERS = (".ipynb_checkpoints", "_temporary", "_delta_log")
OUTPUT = ("file", "row", "image", "image_id", "error", "predictions")
ScoredRow = tuple[str, int, str | None, str | None, str | None, str]
scorer: Scorer
params: dict[str, Params]  # params of the job by orientation; an input uses those of its default orientation
logged_notes: set[str] = set()  # each note is logged once per process


def init() -> None:
    """Open the deployed model. Azure ML calls this function once per process.

    The environment variable `AZUREML_MODEL_DIR` is the folder of the model, and the optional `SCORING_PARAMS` has the
    params of all rows as a JSON object.

    Raises:
        BadModel: the model cannot be opened.
        BadParameter: a param has an unknown name or a value out of range.
    """
    global scorer, params
    model = open_model(azure.model_folder(), local_paths=True)
    values = {"mask_encoding": "rle", **json.loads(os.environ.get("SCORING_PARAMS", "{}")), "on_error": "record"}
    params = {choice: model.defaults.read({"orientation": choice, **values}) for choice in ORIENTATIONS}
    scorer = Scorer(model.engine)


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Score input files. Azure ML calls this function once per mini-batch.

    Args:
        mini_batch: paths of files. Hidden files are skipped.

    Returns:
        One row for each row of the files, with the columns in OUTPUT; `predictions` is JSON text. If a file cannot be
        read to its end, an additional row has the error.
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
    """Yield the scored rows of one file. Raises BadData."""
    source = sources.find(file)
    source.check()
    _log_once(source.notes)
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
            yield name, index[position], image_name(image), answer["image_id"], answer["error"], predictions
        first += len(table)


def _log_once(notes: list[str]) -> None:
    """Write notes to the log. A note that this process has already written is skipped."""
    for note in notes:
        if note not in logged_notes:
            logged_notes.add(note)
            print(note, file=sys.stderr)
