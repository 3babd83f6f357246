"""Scores a table of images and prompts with an MLflow model.

python -m scoring.batch --model build/model --input samples/prompts.csv --output out/predictions.parquet
python -m scoring.batch embed --model build/model --images samples --store out/embeddings
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model
from tqdm import tqdm

from model import images, masks, prompts
from model.errors import BadInput
from model.images import ImageLimits
from model.package import json_object
from model.prompts import Prompt
from scoring.batch import embed, tables
from scoring.overlay import Shown, overlay, sheet

ROWS_AT_ONCE = 32
IMAGES_SHOWN = 6


def score(model: PyFuncModel, table: pd.DataFrame, params: dict[str, Any]) -> Iterator[pd.DataFrame]:
    """The answers to a table, some rows at a time, with a progress bar; a bad row answers with its error."""
    with tqdm(total=len(table), unit="row", desc="scoring", disable=None) as progress:
        for start in range(0, len(table), ROWS_AT_ONCE):
            rows = table.iloc[start : start + ROWS_AT_ONCE]
            yield model.predict(rows, params={**params, "on_error": "record", "response_format": "model_card"})
            progress.update(len(rows))


def picture(table: pd.DataFrame, predictions: pa.Table, encoding: str) -> Any:
    """A sheet of the first images, each with the best mask of every prompt on it."""
    shown: dict[str, list[Shown]] = {}
    for (_, row), answer in zip(table.iterrows(), predictions.to_pylist(), strict=True):
        if answer["error"] or not isinstance(row.get("image"), (str, bytes)):
            continue
        if row["image"] not in shown and len(shown) == IMAGES_SHOWN:
            continue
        cells = (row.get(name) for name in ("input_points", "input_labels", "input_boxes", "mask_input"))
        asked = prompts.read(*cells) or [Prompt()] * len(answer["predictions"])  # everything: an object each
        for prompt, prediction in zip(asked, answer["predictions"], strict=True):
            best = max(prediction["mask_per_prediction"], key=lambda one: one["iou_score"])
            mask = masks.decode(best["encoded_binary_mask"], encoding, tuple(best["size"]))
            one = Shown(mask, best["iou_score"], prompt.box, prompt.points, prompt.labels)
            shown.setdefault(row["image"], []).append(one)
    limits = ImageLimits(local_paths=True)
    return sheet([overlay(images.decode(images.read(source, limits), limits), some) for source, some in shown.items()])


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["embed"]:
        return embed.main(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m scoring.batch", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument("--input", type=Path, required=True, help="table of images and prompts, .csv or .parquet")
    parser.add_argument("--output", type=Path, required=True, help="table of predictions to write, .parquet")
    parser.add_argument("--overlay", type=Path, help="also draw the first images with their masks into this .png")
    parser.add_argument("--params", type=json_object, default={}, help="as JSON (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    started = time.perf_counter()
    params = {"mask_encoding": "rle", **chosen.params}
    parts: list[pa.Table] = []
    try:
        table = tables.read(chosen.input)
        model = load_model(chosen.model, model_config={"local_paths": True})
        loaded = time.perf_counter()

        def answered() -> Iterator[pa.Table]:
            for answers in score(model, table, params):
                part = tables.with_answers(table.loc[answers.index], answers)
                parts.append(part)
                yield part

        tables.write(answered(), chosen.output)
    except (tables.BadTable, MlflowException, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    scored = time.perf_counter()
    predictions = pa.concat_tables(parts)
    failed = [error for error in predictions["error"].to_pylist() if error]
    counts = [len(row) for row in predictions["predictions"].to_pylist()]
    scores = [
        max(mask["iou_score"] for mask in prediction["mask_per_prediction"])
        for row in predictions["predictions"].to_pylist()
        for prediction in row
    ]
    print(f"rows         {len(table)} ({len(failed)} failed)")
    print(f"images       {len({name for name in predictions['image_id'].to_pylist() if name})}")
    print(f"predictions  {sum(counts)}, mean predicted IoU {np.mean(scores) if scores else float('nan'):.3f}")
    seconds = scored - loaded
    print(f"time         {loaded - started:.1f} s to load, {seconds:.1f} s to score, {len(table) / seconds:.1f} rows/s")
    print(f"written      {chosen.output}")
    for reason, times in Counter(failed).most_common(5):
        print(f"failed       {reason}" + (f" ({times} rows)" if times > 1 else ""))
    if chosen.overlay and scores:
        chosen.overlay.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture(table, predictions, params["mask_encoding"]).save(chosen.overlay)
            print(f"overlay      {chosen.overlay}")
        except BadInput as error:
            print(f"overlay      not drawn: {error}")
    return 1 if len(failed) == len(table) else 0


if __name__ == "__main__":
    sys.exit(main())
