"""Run a batch job on a Spark cluster, with the same rows, masks and columns as on a single machine.

Spark shuffles the rows twice: first, so that one worker gets all rows of an image; then, to restore the order of the
input.
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
from contextlib import contextmanager
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

from sam_endpoint.model.answers import answers_to_frame
from sam_endpoint.model.errors import BadData, OutputConflict
from sam_endpoint.model.params import Params
from sam_endpoint.model.prompts.cells import MISSING_TEXT
from sam_endpoint.model.rows import COLUMNS, Row
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.scoring.batch.answers import NamedImages, join_answers, read_rows
from sam_endpoint.scoring.batch.locations import check_replaceable, not_a_job, parse_location
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.batch.sources import Source
from sam_endpoint.scoring.batch.sources.column_types import FAULT, cast
from sam_endpoint.scoring.batch.summary import Summary
from sam_endpoint.scoring.runtime import open_model

PACKAGE = Path(__file__).parents[2]  # sam_endpoint
CASE = "spark.sql.caseSensitive"
SOURCE, ROW = pa.field("_source", pa.int32()), pa.field("_row", pa.int64())
# Arrow types that Spark lacks, and the types that replace them.
WIDER = {
    pa.null(): pa.string(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
}
TASKS_A_CORE = 8  # many, so that a lost executor costs little work; but few enough that rows share image embeddings
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
    """Score rows on a Spark cluster, and write them in the order of the input as a folder of Parquet parts.

    Args:
        spark: the session.
        model: folder of an MLflow model. It is sent to the workers.
        params: params of all rows.
        source: the rows.
        output: path or URL of the folder, which Spark can write.
        overwrite: whether to replace the output of another job.
        rows_at_once: maximum number of rows that a worker scores together.

    Returns:
        Statistics of the job, without the time spent by stage.

    Raises:
        BadData: the rows cannot be read.
        OutputConflict: the output exists and `overwrite` is false, or the output folder holds other files.
        OSError: Spark cannot finish the job for another reason.
    """
    check_output(output, overwrite)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(rows_at_once))
    folder = tempfile.mkdtemp()
    # The files must exist as long as the Spark context, because executors that start later fetch them, too.
    weakref.finalize(spark.sparkContext, shutil.rmtree, folder, ignore_errors=True)
    spark.sparkContext.addPyFile(_write_code_archive(Path(folder)))
    archive = Path(shutil.make_archive(f"{folder}/{Path(folder).name}", "zip", model))
    spark.sparkContext.addArchive(str(archive))
    scored = _score(group_by_image(spark, source), archive.name, params)
    scored = scored.persist(StorageLevel.DISK_ONLY)  # because sorting reads the rows twice
    try:
        ordered = scored.sort(SOURCE.name, ROW.name).drop(SOURCE.name, ROW.name)
        names = {plain: name for name, plain in _plain_names(source.schema).items()}
        with _case_sensitive(spark):
            ordered = ordered.toDF(*(names.get(name, name) for name in ordered.columns))
            ordered.write.parquet(output, mode="overwrite" if overwrite else "error", compression="zstd")
        return _summarize(scored)
    except PySparkException as error:
        raise _readable_error(error, output) from None
    finally:
        scored.unpersist()


@contextmanager
def _case_sensitive(spark: SparkSession) -> Iterator[None]:
    """Let Spark write columns whose names differ only in case, such as the input's `Error` and the output's `error`."""
    usual = spark.conf.get(CASE) or "false"
    spark.conf.set(CASE, "true")
    try:
        yield
    finally:
        spark.conf.set(CASE, usual)


def check_output(output: str, overwrite: bool) -> None:
    """Check that Spark neither deletes files of another origin nor writes to a file.

    Args:
        output: path or URL of the folder.
        overwrite: whether Spark deletes the folder first.

    Raises:
        OutputConflict: the output is a file, or a folder with files that are not a job's output.
    """
    try:
        fs, path, _ = parse_location(output)
        exists = fs.exists(path)
    except (OSError, ImportError):
        return  # only the cluster can reach this file system
    if exists and not fs.isdir(path):
        raise not_a_job(path)
    if exists and overwrite:
        check_replaceable(fs, path)


def group_by_image(spark: SparkSession, source: Source) -> DataFrame:
    """Read the rows of a source, add their positions, and put all rows of an image together in one partition.

    Args:
        spark: the session.
        source: the rows.

    Returns:
        The rows in types that Spark supports, with the number of the table in `_source` and of the row in `_row`.
    """
    splits = source.split()
    columns = pa.schema([SOURCE, ROW, (FAULT, pa.string()), *_fields(source.schema)])
    read = _reader(splits, columns, _plain_names(source.schema))
    rows = spark.range(0, len(splits), 1, len(splits)).mapInArrow(read, from_arrow_schema(columns))
    image = F.xxhash64("image") if "image" in columns.names else F.lit(None)
    if "image_id" in columns.names:  # such a row can refer to the image of another row
        text = F.lower(F.trim(F.col("image_id").cast("string")))
        named = text.isNotNull() & ~text.isin(*MISSING_TEXT)
        image = F.when(named, F.xxhash64("image_id")).otherwise(image)
    tasks = TASKS_A_CORE * spark.sparkContext.defaultParallelism
    return rows.repartition(tasks, image).sortWithinPartitions(image, SOURCE.name, ROW.name)


def _fields(schema: pa.Schema) -> Iterator[pa.Field]:
    """Yield the columns of a schema in types that Spark supports. Columns of unsupported types become text."""
    names = _plain_names(schema)
    for column in schema:
        kind = _kind(column.type)
        try:
            to_arrow_schema(from_arrow_schema(pa.schema([(column.name, kind)])))
        except (PySparkException, ValueError):
            kind = pa.string()
        yield pa.field(names[column.name], kind)


def _plain_names(schema: pa.Schema) -> dict[str, str]:
    """Map the names of columns that the model does not read to names that no other column has.

    Spark interprets dots and backticks as paths, and does not distinguish upper and lower case.
    """
    return {name: name if name in COLUMNS else f"_column_{i}" for i, name in enumerate(schema.names)}


def _score(rows: DataFrame, model: str, params: Params) -> DataFrame:
    """Return the rows with their predictions and positions."""
    empty = pa.Table.from_batches([], to_arrow_schema(rows.schema))
    answered = join_answers(empty, answers_to_frame([], pd.RangeIndex(0), params)).schema
    return rows.mapInArrow(_worker(model, params), from_arrow_schema(answered))


def _kind(kind: pa.DataType) -> pa.DataType:
    """Return an Arrow type that Spark supports. Unsigned integers become wider signed integers; null becomes string."""
    if kind.num_fields and pa.types.is_struct(kind):
        return pa.struct([(field.name, _kind(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_kind(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_kind(kind.key_type), _kind(kind.item_type))
    return WIDER.get(kind, kind)


def _reader(splits: list[Source], columns: pa.Schema, names: dict[str, str]) -> Batches:
    """Return a function for `mapInArrow` that maps the numbers of splits to the rows of these splits."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                row = 0
                for table in splits[number].tables():
                    place = f"near row {row} of table {number + 1}, '{splits[number].name}'"
                    for name in table.column_names:
                        if name not in names and name != FAULT:
                            raise BadData(f"{place}: the column '{name}' does not occur in the first rows")
                    table = table.rename_columns([names.get(name, name) for name in table.column_names])
                    yield from _with_positions(table, place, number, row, columns).to_batches()
                    row += len(table)

    return read


def _with_positions(table: pa.Table, place: str, number: int, row: int, columns: pa.Schema) -> pa.Table:
    """Cast a table to the job's columns, and add the positions of its rows. Raises BadData, which names the place."""
    positions = [pa.array([number] * len(table), SOURCE.type), pa.array(range(row, row + len(table)), ROW.type)]
    arrays = [*positions]
    try:
        for field in list(columns)[2:]:
            present = field.name in table.column_names
            arrays.append(cast(table[field.name], field.type) if present else pa.nulls(len(table), field.type))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise BadData(f"{place}: a column has another type than in the first rows ({type(error).__name__})") from None
    return pa.Table.from_arrays(arrays, schema=columns)


def _worker(model: str, params: Params) -> Batches:
    """Return a function for `mapInArrow` that scores rows."""

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer, images = _scorer(model)
        named = NamedImages()
        for batch in batches:
            table = pa.Table.from_batches([batch])
            rows = list(named.resolve(read_rows(scorer, table, table[ROW.name].to_pylist(), params)))
            refs = dict.fromkeys(row.image for row in rows if isinstance(row, Row) and row.image is not None)
            images.announce(refs)
            answers = answers_to_frame(scorer.score(rows, params), pd.RangeIndex(len(rows)), params)
            images.discard(refs)
            yield from join_answers(table, answers).to_batches()

    return work


@cache
def _scorer(model: str) -> tuple[Scorer, ImagePrefetcher]:
    """Return this worker process's model and image source. Both are cached for later tasks."""
    started = time.monotonic()
    engine = open_model(SparkFiles.get(model), local_paths=True).engine
    images = ImagePrefetcher(engine.images)
    print(f"model loaded in {time.monotonic() - started:.1f} s", file=sys.stderr)
    return Scorer(engine.with_images(images)), images


def _write_code_archive(folder: Path) -> str:
    """Write this project's code to a zip file for the workers, and return its path."""
    path = folder / f"{folder.name}-code.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(PACKAGE / "__init__.py", "sam_endpoint/__init__.py")
        for package in ("model", "scoring"):
            for file in (PACKAGE / package).rglob("*.py"):
                archive.write(file, Path("sam_endpoint", file.relative_to(PACKAGE)))
    return str(path)


def _summarize(scored: DataFrame) -> Summary:
    """Compute the statistics of the scored rows."""
    best = "aggregate(predictions, 0D, (sum, p) -> sum + array_max(transform(p.mask_per_prediction, m -> m.iou_score)))"
    counts = scored.agg(
        F.count("*").alias("rows"),
        F.count("error").alias("failed"),
        F.count_distinct("image_id").alias("images"),
        F.sum(F.size("predictions")).alias("predictions"),
        F.sum(F.expr(best)).alias("score_sum"),
    ).first()
    reason = F.regexp_replace("error", "^row \\d+( \\(.*?\\))?, ", "").alias("reason")
    failures = scored.where("error is not null").groupBy(reason).count().orderBy(F.desc("count")).limit(100).collect()
    totals: dict[str, Any] = counts.asDict() if counts else {}
    return Summary(**totals, failures=Counter({row["reason"]: row["count"] for row in failures}))


def _readable_error(error: PySparkException, output: str) -> Exception:
    """Convert a Spark exception to an exception with a readable message."""
    text = str(error)
    if "PATH_ALREADY_EXISTS" in text:
        return OutputConflict(f"'{output}' exists; choose another --output, or replace it with --overwrite")
    bad_data = re.search(r"BadData: (.+)", text)
    return BadData(bad_data[1]) if bad_data else OSError(text.strip().splitlines()[0])
