"""The batch job on a Spark cluster, for what outgrows one machine: the same rows, masks and columns.

Rows travel twice: to the worker that scores all rows of their image, and back into their order.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyspark import SparkFiles, StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from model.contract import Params, Row, answers_to_frame, read_rows
from model.scorer import Scorer
from scoring import models
from scoring.batch.ahead import Ahead
from scoring.batch.job import Summary, frame, with_answers
from scoring.batch.parts import OtherJob
from scoring.batch.sources import BadTable, Source

ROOT = Path(__file__).parents[2]
SOURCE, ROW = pa.field("_source", pa.int32()), pa.field("_row", pa.int64())
TASKS_A_CORE = 8  # so many that a lost executor costs little, so few that images share their encoding
Batches = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def run(
    spark: SparkSession,
    model: Path,
    params: Params,
    source: Source,
    output: str,
    overwrite: bool = False,
    rows_at_once: int = 512,
) -> Summary:
    """Scores a source's rows on the cluster and writes them, in order, as a folder of parquet parts.

    model: folder of an MLflow model, which is sent to the workers. output: a path or URL that Spark can write.
    rows_at_once: most rows that a worker scores together. Raises BadTable, and OtherJob where something is at the
    output already and `overwrite` is not set.
    """
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows_at_once))
    folder = tempfile.mkdtemp()
    # An executor that starts later fetches what was sent in its session, whatever job it starts for.
    weakref.finalize(spark.sparkContext, shutil.rmtree, folder, ignore_errors=True)
    spark.sparkContext.addPyFile(_code(Path(folder)))
    archive = Path(shutil.make_archive(f"{folder}/{Path(folder).name}", "zip", model))
    spark.sparkContext.addArchive(str(archive))
    scored = _scored(gathered(spark, source), archive.name, params)
    scored = scored.persist(StorageLevel.DISK_ONLY)  # to sort is to look twice
    try:
        ordered = scored.sort(SOURCE.name, ROW.name).drop(SOURCE.name, ROW.name)
        ordered.write.parquet(output, mode="overwrite" if overwrite else "error", compression="zstd")
        return _summary(scored)
    except PySparkException as error:
        raise _told(error, output) from None
    finally:
        scored.unpersist()


def gathered(spark: SparkSession, source: Source) -> DataFrame:
    """A source's rows with their places, all rows of an image in one partition and next to each other."""
    splits = source.split()
    first = next(source.windows(1)).schema
    columns = pa.schema([SOURCE, ROW, *(pa.field(one.name, _kind(one.type)) for one in first)])
    rows = spark.range(0, len(splits), 1, len(splits)).mapInArrow(_reader(splits, columns), from_arrow_schema(columns))
    image = F.xxhash64("image") if "image" in columns.names else F.lit(None)
    if "image_id" in columns.names:  # which names the image that another row brings
        image = F.when(F.col("image_id").isNotNull(), F.xxhash64("image_id")).otherwise(image)
    tasks = TASKS_A_CORE * spark.sparkContext.defaultParallelism
    return rows.repartition(tasks, image).sortWithinPartitions(image, SOURCE.name, ROW.name)


def _scored(rows: DataFrame, model: str, params: Params) -> DataFrame:
    """The rows with their answers, and their places still."""
    empty = pa.Table.from_batches([], to_arrow_schema(rows.schema))
    answered = with_answers(empty, answers_to_frame([], pd.RangeIndex(0), params)).schema
    return rows.mapInArrow(_worker(model, params), from_arrow_schema(answered))


def _kind(kind: pa.DataType) -> pa.DataType:
    """An Arrow type as Spark can hold it: nothing as text, encoded values as what they stand for."""
    if pa.types.is_null(kind):
        return pa.string()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _reader(splits: list[Source], columns: pa.Schema) -> Batches:
    """Numbers of splits to their rows."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                row = 0
                for table in splits[number].tables():
                    yield from _placed(table, number, row, columns).to_batches()
                    row += len(table)

    return read


def _placed(table: pa.Table, number: int, row: int, columns: pa.Schema) -> pa.Table:
    """A table under the columns of the first one, with the places of its rows."""
    known = set(columns.names)
    for name in table.column_names:
        if name not in known:
            raise BadTable(f"a column '{name}' that the first rows lack, near row {row} of table {number + 1}")
    found = {
        SOURCE.name: pa.array([number] * len(table), SOURCE.type),
        ROW.name: pa.array(range(row, row + len(table)), ROW.type),
    }
    for name in table.column_names:
        found[name] = table[name]
    try:
        arrays = [
            found[one.name].cast(one.type) if one.name in found else pa.nulls(len(table), one.type) for one in columns
        ]
    except pa.ArrowException as error:
        raise BadTable(f"table {number + 1} has other types of columns than the first: {error}") from None
    return pa.Table.from_arrays(arrays, schema=columns)


def _worker(model: str, params: Params) -> Batches:
    """Rows to answers."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer, ahead = _scorer(model)
        for batch in batches:
            table = pa.Table.from_batches([batch])
            rows = read_rows(frame(table, 0).set_axis(table[ROW.name].to_pylist()))
            ahead.want(dict.fromkeys(row.image for row in rows if isinstance(row, Row) and row.image is not None))
            answers = answers_to_frame(scorer.score(rows, params), pd.RangeIndex(len(rows)), params)
            yield from with_answers(table, answers).to_batches()

    return work


@cache
def _scorer(model: str) -> tuple[Scorer, Ahead]:
    """A Python worker's one model, which its later tasks find here; the executor's log tells."""
    began = time.monotonic()
    scorer = models.load(SparkFiles.get(model), local_paths=True).unwrap_python_model().scorer
    ahead = Ahead(scorer.open)
    scorer.open = ahead.open
    print(f"model loaded in {time.monotonic() - began:.1f} s", file=sys.stderr)
    return scorer, ahead


def _code(folder: Path) -> str:
    """This project's code as one file for the workers."""
    path = folder / f"{folder.name}-code.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for package in ("model", "scoring"):
            for file in (ROOT / package).rglob("*.py"):
                archive.write(file, file.relative_to(ROOT))
    return str(path)


def _summary(scored: DataFrame) -> Summary:
    best = "aggregate(predictions, 0D, (sum, p) -> sum + array_max(transform(p.mask_per_prediction, m -> m.iou_score)))"
    counts = scored.agg(
        F.count("*").alias("rows"),
        F.count("error").alias("failed"),
        F.count_distinct("image_id").alias("images"),
        F.sum(F.size("predictions")).alias("predictions"),
        F.sum(F.expr(best)).alias("score_sum"),
    ).first()
    reason = F.regexp_replace("error", "^row \\d+, ", "").alias("reason")
    failures = scored.where("error is not null").groupBy(reason).count().orderBy(F.desc("count")).limit(100).collect()
    found: dict[str, Any] = counts.asDict() if counts else {}
    return Summary(**found, failures=Counter({row["reason"]: row["count"] for row in failures}))


def _told(error: PySparkException, output: str) -> Exception:
    """What a person needs of a failure that came through Spark."""
    text = str(error)
    if "PATH_ALREADY_EXISTS" in text:
        return OtherJob(f"'{output}' exists; choose another --output, or start anew with --overwrite")
    own = re.search(r"BadTable: (.+)", text)
    return BadTable(own[1]) if own else OSError(text.strip().splitlines()[0])
