"""One machine's batch job: windows of rows in, parts of answers out."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from model.contract import COLUMNS, OUTPUT_COLUMNS, Params, Row, answers_to_frame, read_rows
from model.errors import BadInput
from model.scorer import Scorer
from scoring.batch.ahead import Ahead
from scoring.batch.parts import Parts
from scoring.batch.sources import Source

LONGEST_NAME = 1024
MASK = pa.struct(
    [
        ("encoded_binary_mask", pa.string()),
        ("iou_score", pa.float64()),
        ("size", pa.list_(pa.int64())),
        ("bbox", pa.list_(pa.float64())),
        ("area", pa.int64()),
        ("low_res_logits", pa.string()),
    ]
)
ANSWER = {
    "predictions": pa.list_(pa.struct([("mask_per_prediction", pa.list_(MASK))])),
    "image_id": pa.string(),
    "error": pa.string(),
}


# A window: its number, table, rows as they were read, and what was noted if it is scored already (its rows unread).
Window = tuple[int, pa.Table, list[Row | BadInput], dict[str, Any] | None]


class TooManyFailures(RuntimeError):
    """More rows failed than the job allows."""

    def __init__(self, failed: int, threshold: int) -> None:
        super().__init__(f"{failed} rows failed, and at most {threshold} may")


@dataclass
class Summary:
    """What a job did: `failures` by reason, `seconds` by where they went. Adds up over parts and runs."""

    rows: int = 0
    failed: int = 0
    images: int = 0
    predictions: int = 0
    score_sum: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, noted: dict[str, Any]) -> None:
        for name in ("rows", "failed", "images", "predictions", "score_sum"):
            setattr(self, name, getattr(self, name) + noted[name])
        self.failures.update(noted["failures"])
        for where, spent in noted["seconds"].items():
            self.seconds[where] += spent

    def noted(self) -> dict[str, Any]:
        return {**vars(self), "failures": dict(self.failures), "seconds": dict(self.seconds)}


def run(
    scorer: Scorer,
    params: Params,
    source: Source,
    parts: Parts,
    rows_a_part: int = 512,
    error_threshold: int = -1,
) -> Summary:
    """Scores every row that is not scored already.

    error_threshold: most rows that may fail, -1 any number; with one more the job stops, and what is written stays.
    Raises TooManyFailures, BadTable, and OSError where the output cannot be written.
    """
    summary, count = Summary(), 0
    ahead = Ahead(scorer.open)
    scorer.open = ahead.open  # type: ignore[method-assign]
    with tqdm(unit="row", desc="scoring", disable=None, smoothing=0.05) as bar:
        for number, table, rows, noted in _read_ahead(source, parts, ahead, rows_a_part):
            count = number + 1
            if noted is None:
                noted = _score(scorer, params, parts, number, table, rows, ahead)
            summary.add(noted)
            if source.done:
                bar.total = max(summary.rows, round(summary.rows / source.done))
            bar.set_postfix(images=summary.images, failed=summary.failed, refresh=False)
            bar.update(noted["rows"])
            if 0 <= error_threshold < summary.failed:
                raise TooManyFailures(summary.failed, error_threshold)
    began = time.perf_counter()
    parts.finish(count, summary.noted())
    summary.seconds["write"] += time.perf_counter() - began
    return summary


def _read_ahead(source: Source, parts: Parts, ahead: Ahead, rows_a_part: int) -> Iterator[Window]:
    """Each window; the images of the one after it are announced before it comes."""
    held: Window | None = None
    first = 0
    for number, table in enumerate(source.windows(rows_a_part)):
        rows: list[Row | BadInput] = []
        noted = parts.noted(number)
        if noted is None:
            rows = read_rows(frame(table, first))
            sources = dict.fromkeys(row.image for row in rows if isinstance(row, Row) and row.image is not None)
            ahead.want(sources)
        first += len(table)
        if held is not None:
            yield held
        held = number, table, rows, noted
    if held is not None:
        yield held


def frame(table: pa.Table, first: int) -> pd.DataFrame:
    """The contract's columns, under the row numbers of the whole input."""
    names = [name for name in COLUMNS if name in table.column_names]
    columns = {name: pd.Series(table[name].to_pylist(), dtype=object) for name in names}
    return pd.DataFrame(columns).set_axis(range(first, first + len(table)))


def _score(
    scorer: Scorer,
    params: Params,
    parts: Parts,
    number: int,
    table: pa.Table,
    rows: list[Row | BadInput],
    ahead: Ahead,
) -> dict[str, Any]:
    began, waited = time.perf_counter(), ahead.waited
    answers = scorer.score(rows, params)
    scored = time.perf_counter()
    errors = [answer["error"] for answer in answers if answer["error"]]
    best = [
        max(mask["iou_score"] for mask in prediction["mask_per_prediction"])
        for answer in answers
        for prediction in answer["predictions"]
    ]
    summary = Summary(
        rows=len(answers),
        failed=len(errors),
        images=len({answer["image_id"] for answer in answers if answer["image_id"]}),
        predictions=len(best),
        score_sum=float(sum(best)),
        failures=Counter(error.partition(", ")[2] or error for error in errors),
    )
    summary.seconds["images"] = ahead.waited - waited
    summary.seconds["model"] = scored - began - summary.seconds["images"]
    joined = with_answers(table, answers_to_frame(answers, pd.RangeIndex(len(answers)), params))
    parts.put(number, joined, summary.noted())
    summary.seconds["write"] += time.perf_counter() - scored
    return summary.noted()


def with_answers(table: pa.Table, answers: pd.DataFrame) -> pa.Table:
    """The rows' own columns with their answers beside them. Image contents are left out, names of images kept."""
    kept = [name for name in table.column_names if name not in OUTPUT_COLUMNS]
    joined = table.select(kept)
    if "image" in kept:
        names = pa.array([name_of(image) for image in table["image"].to_pylist()], pa.string())
        joined = joined.set_column(kept.index("image"), "image", names)
    for name, kind in ANSWER.items():
        joined = joined.append_column(pa.field(name, kind), pa.array(list(answers[name]), kind))
    return joined


def name_of(image: object) -> str | None:
    """An image's path or URL; None for an image given by its content."""
    return image if isinstance(image, str) and len(image) <= LONGEST_NAME else None
