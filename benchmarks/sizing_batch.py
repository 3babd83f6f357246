"""Compute the time, the cost and the limits of a batch job from measured stage times."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.stages import Stages

HOUR, DAY = 3600.0, 86_400.0
TASKS_A_CORE = 8  # of the Spark job, see scoring/batch/spark.py
# Limits that a large job meets. They are the published limits and list prices of a large object store in 2025, and
# rules of thumb of Spark; options change them.
PUTS_A_SECOND = 3500.0  # writes per second and prefix of an object store
PREFIXES = 256  # folders of the embedding store
PUT_DOLLARS = 5e-6  # one write
STORE_DOLLARS = 0.023  # one GB (1e9 bytes) for a month
TASK_SECONDS = HOUR  # a lost executor repeats a task, so a task of more than an hour is too long
SHUFFLE_BLOCKS = 1e9  # map tasks x reduce tasks; the driver keeps one entry for each
DISK_A_CORE = 50e9  # bytes of local disk


@dataclass(frozen=True)
class Batch:
    """A batch job.

    Attributes:
        images: number of distinct images.
        replica_seconds: seconds of one replica.
        store_bytes: bytes of the embeddings of all images.
        answer_bytes: bytes of the answers before compression.
    """

    rows: float
    images: float
    replica_seconds: float
    store_bytes: float
    answer_bytes: float


def size_batch(stages: Stages, rows: float, rows_per_image: float) -> Batch:
    """Compute the work of a table.

    Args:
        stages: measured stage times.
        rows: number of rows, each with one prompt.
        rows_per_image: mean number of rows of an image.
    """
    images = rows / rows_per_image
    seconds = images * stages.image_seconds + rows * stages.row_seconds
    return Batch(rows, images, seconds, images * stages.embedding_bytes, rows * stages.answer_bytes)


@dataclass(frozen=True)
class Limit:
    """What a job needs of something limited.

    Attributes:
        name: what is limited.
        needed: what the job needs.
        limit: what there is.
        remedy: what to do if it is too little.
    """

    name: str
    needed: float
    limit: float
    remedy: str

    @property
    def share(self) -> float:
        """What the job needs, as a share of what there is; over 1, the job breaks here."""
        return self.needed / self.limit


def spark_limits(stages: Stages, batch: Batch, cores: int, files: float, with_store: bool, price: float) -> list[Limit]:
    """Return what limits a job on Spark, the tightest limit first.

    Args:
        stages: measured stage times.
        batch: the job.
        cores: number of cores of the cluster.
        files: number of input files, each read by a task.
        with_store: whether each embedding is also written to a store.
        price: dollars an hour for the machine of a replica.
    """
    tasks = TASKS_A_CORE * cores
    seconds = batch.replica_seconds * stages.cores / cores
    limits = [
        Limit(
            "seconds of one task",
            batch.replica_seconds * stages.cores / tasks,
            TASK_SECONDS,
            "split the table into several jobs, so that a lost executor repeats less",
        ),
        Limit("shuffle blocks (input files x tasks)", files * tasks, SHUFFLE_BLOCKS, "write fewer, larger input files"),
        Limit(
            "bytes of local disk per core, for the scored rows",
            batch.answer_bytes / cores,
            DISK_A_CORE,
            "split the table into several jobs, or use larger disks",
        ),
    ]
    if with_store:
        month = batch.store_bytes / 1e9 * STORE_DOLLARS
        limits.append(
            Limit(
                "writes to the store per second", batch.images / seconds, PUTS_A_SECOND * PREFIXES, "write more slowly"
            )
        )
        compute = batch.replica_seconds / HOUR * price
        limits.append(
            Limit(
                "dollars a month for the store, compared with those to compute it again",
                month,
                compute,
                "do not store the embeddings of a job whose images nobody clicks on",
            )
        )
    return sorted(limits, key=lambda limit: -limit.share)


def describe_batch(stages: Stages, options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a table about a batch job, and a table of what limits it on Spark.

    Args:
        stages: measured stage times.
        options: the options of `python -m benchmarks sizing`.
    """
    batch = size_batch(stages, options.rows, options.rows_per_image)
    cores = options.cores or stages.cores
    replicas = cores / stages.cores
    hours = batch.replica_seconds / HOUR
    yield f"| rows | {batch.rows:,.0f}, on {batch.images:,.0f} images |"
    yield f"| time of one replica | {format_time(batch.replica_seconds)} |"
    if stages.device != "cpu":
        yield f"| GPUs | {replicas:,.0f} |"
    yield f"| on {format_cores(cores)} | {format_time(batch.replica_seconds / replicas)} |"
    yield f"| cost of the computation | {hours * options.price:,.2f} dollars |"
    yield f"| Spark partitions | {TASKS_A_CORE * cores:,} of {batch.rows / (TASKS_A_CORE * cores):,.0f} rows |"
    yield f"| masks as run lengths, before compression | {format_bytes(batch.answer_bytes)} |"
    yield f"| store of all embeddings | {format_bytes(batch.store_bytes)} in {batch.images:,.0f} objects |"
    writes, month = batch.images * PUT_DOLLARS, batch.store_bytes / 1e9 * STORE_DOLLARS
    yield f"| cost of the store | {writes:,.2f} dollars to write, {month:,.2f} dollars a month |"
    yield ""
    yield "What limits the job on Spark, the tightest limit first; over 100 %, the job breaks there:"
    yield ""
    yield "| limit | needed | there is | share | if it breaks |"
    yield "|---|---|---|---|---|"
    for limit in spark_limits(stages, batch, cores, options.files, options.store, options.price):
        yield f"| {limit.name} | {limit.needed:,.3g} | {limit.limit:,.3g} | {limit.share:.1%} | {limit.remedy} |"


def format_cores(count: int) -> str:
    """Return a number of cores as text."""
    return "1 core" if count == 1 else f"{count:,} cores"


def format_time(seconds: float) -> str:
    """Return a duration as text, in the largest unit of which it has at least two."""
    for size, name in ((DAY, "days"), (HOUR, "hours"), (60.0, "minutes"), (1.0, "s")):
        if seconds >= 2 * size or (name == "s" and seconds >= 1):
            return f"{seconds / size:,.3g} {name}"
    return f"{seconds * 1000:.3g} ms"


def format_bytes(count: float) -> str:
    """Return a number of bytes as text, in units of 1000."""
    for size, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:,.3g} {name}"
    return f"{count:,.0f} bytes"
