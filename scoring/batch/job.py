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

from sam_endpoint.model.engine import Engine
from sam_endpoint.model.errors import BadInput, TooManyFailures
from sam_endpoint.model.params import Params
from sam_endpoint.model.rows import COLUMNS, OUTPUT_COLUMNS, Row, answers_to_frame
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch.parts import Parts
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.batch.sources import Source

MAX_NAME = 1024
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


# Number, table, parsed rows, and the summary of the part if it is scored already (its rows are not parsed then).
Window = tuple[int, pa.Table, list[Row | BadInput], dict[str, Any] | None]


@dataclass
class Summary:
    """What a job did: counts, `failures` by reason, `seconds` by stage. Summaries of parts add up."""

    rows: int = 0
    failed: int = 0
    images: int = 0
    predictions: int = 0
    score_sum: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, part: dict[str, Any]) -> None:
        for name in ("rows", "failed", "images", "predictions", "score_sum"):
            setattr(self, name, getattr(self, name) + part[name])
        self.failures.update(part["failures"])
        for where, spent in part["seconds"].items():
            self.seconds[where] += spent

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "failures": dict(self.failures), "seconds": dict(self.seconds)}


def run(
    engine: Engine,
    params: Params,
    source: Source,
    parts: Parts,
    rows_a_part: int = 512,
    error_threshold: int = -1,
) -> Summary:
    """Score every row that is not scored already.

    Args:
        engine: scores the rows; its images are read ahead.
        params: params of all rows.
        source: the rows.
        parts: the output.
        rows_a_part: rows that are scored and written together.
        error_threshold: largest number of failed rows, -1 for any number. With one more the job stops; the parts that
            are written stay.

    Raises:
        TooManyFailures: more rows failed than `error_threshold`.
        BadData: the input cannot be read.
        OSError: the output cannot be written.
    """
    summary, count = Summary(), 0
    with (
        ImagePrefetcher(engine.images) as images,
        tqdm(unit="row", desc="scoring", disable=None, smoothing=0.05) as bar,
    ):
        scorer = Scorer(engine.with_images(images))
        for number, table, rows, finished in _windows(source, parts, scorer, images, rows_a_part):
            count = number + 1
            part = finished if finished is not None else _score(scorer, params, parts, number, table, rows, images)
            summary.add(part)
            if source.done:
                bar.total = max(summary.rows, round(summary.rows / source.done))
            bar.set_postfix(images=summary.images, failed=summary.failed, refresh=False)
            bar.update(part["rows"])
            if 0 <= error_threshold < summary.failed:
                raise TooManyFailures(summary.failed, error_threshold)
    started = time.perf_counter()
    parts.finish(count, summary.to_dict())
    summary.seconds["write"] += time.perf_counter() - started
    return summary


def _windows(
    source: Source, parts: Parts, scorer: Scorer, images: ImagePrefetcher, rows_a_part: int
) -> Iterator[Window]:
    """Yield each window after the images of the next one are announced."""
    previous: Window | None = None
    first = 0
    for number, table in enumerate(source.windows(rows_a_part)):
        rows: list[Row | BadInput] = []
        finished = parts.summary_of_part(number)
        if finished is None:
            rows = scorer.read(frame(table, first))
            images.announce(dict.fromkeys(row.image for row in rows if isinstance(row, Row) and row.image is not None))
        first += len(table)
        if previous is not None:
            yield previous
        previous = number, table, rows, finished
    if previous is not None:
        yield previous


def frame(table: pa.Table, first: int) -> pd.DataFrame:
    """Return the contract's columns, under the row numbers of the whole input."""
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
    images: ImagePrefetcher,
) -> dict[str, Any]:
    started, waited = time.perf_counter(), images.waited
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
    summary.seconds["images"] = images.waited - waited
    summary.seconds["model"] = scored - started - summary.seconds["images"]
    joined = with_answers(table, answers_to_frame(answers, pd.RangeIndex(len(answers)), params))
    parts.put(number, joined, summary.to_dict())
    summary.seconds["write"] += time.perf_counter() - scored
    return summary.to_dict()


def with_answers(table: pa.Table, answers: pd.DataFrame) -> pa.Table:
    """Return the rows' own columns with their answers beside them; image contents become nulls, paths and URLs stay."""
    own_columns = [name for name in table.column_names if name not in OUTPUT_COLUMNS]
    joined = table.select(own_columns)
    if "image" in own_columns:
        names = pa.array([name_of(image) for image in table["image"].to_pylist()], pa.string())
        joined = joined.set_column(own_columns.index("image"), "image", names)
    for name, kind in ANSWER.items():
        joined = joined.append_column(pa.field(name, kind), pa.array(list(answers[name]), kind))
    return joined


def name_of(image: object) -> str | None:
    """Return an image's path or URL, or None for an image given by its content."""
    return image if isinstance(image, str) and len(image) <= MAX_NAME else None
