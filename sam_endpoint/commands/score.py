"""Score a table of images and prompts, or a folder of images, with an MLflow model.

Examples:
  sam-endpoint score --model build/model --input samples/prompts.csv --output out/predictions.parquet
  sam-endpoint score --input 'photos/*.jpg' --output out/everything --params '{"points_per_side": 16}'
  sam-endpoint score --engine spark --master 'local[2]' --input samples/prompts.csv --output out/on-spark

To continue a stopped job, run the same command again. Exit codes: 0 on success; 1 if all rows failed, or more rows than
--error-threshold allows; 2 if the job cannot run; 130 if it was stopped with Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sam_endpoint.commands import RESUMABLE, CommandError, check_file, json_object, positive, require_extra
from sam_endpoint.commands.show import PICTURES
from sam_endpoint.scoring.process import configure_process

if TYPE_CHECKING:
    from sam_endpoint.model.params import Params
    from sam_endpoint.scoring.batch.job import Summary
    from sam_endpoint.scoring.batch.sources import Source

STOPPED = "stopped; run the same command again to continue"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument(
        "--input",
        required=True,
        help="table of images and prompts (.csv, .parquet, .jsonl), folder of tables or images, glob, or fsspec URL",
    )
    parser.add_argument(
        "--output",
        required=True,
        help=".parquet file, or folder for several .parquet files (parts); path or fsspec URL",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output of another job")
    parser.add_argument(
        "--part-rows",
        type=positive,
        default=512,
        help="number of rows per part; the rows of a part are scored together (default: %(default)s)",
    )
    parser.add_argument(
        "--error-threshold",
        type=int,
        default=-1,
        help="maximum number of rows that may fail; -1 for no limit (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "spark"),
        default="local",
        help="run in this process or on a Spark cluster (default: %(default)s)",
    )
    parser.add_argument("--master", help="URL of the Spark cluster (default: Spark's own setting, or this machine)")
    parser.add_argument("--summary", type=Path, help="also write the summary to this .json file")
    parser.add_argument("--overlay", type=Path, help="also draw the first images with their masks into this .png file")
    parser.add_argument(
        "--params", type=json_object, default={}, help="parameters of the model, as a JSON object (default: none)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if options.engine == "spark":
        require_extra("spark")
    configure_process()

    import pyarrow as pa

    from sam_endpoint.model.errors import BadInput, TooManyFailures
    from sam_endpoint.scoring.batch import show

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    if options.summary:
        check_file("--summary", options.summary)
    if options.overlay:
        check_file("--overlay", options.overlay, PICTURES)
    start = time.perf_counter()
    try:
        summary = _score(options)
    except (OSError, pa.ArrowException) as error:
        raise CommandError(f"{error}; {RESUMABLE}") from error
    except TooManyFailures as error:
        raise CommandError(f"{error}; the output so far is kept", exit_code=1) from error
    print(format_summary(summary, options.output, time.perf_counter() - start))
    try:
        if options.summary:
            options.summary.write_text(json.dumps(summary.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise CommandError(f"the output is complete, but --summary cannot be written: {error}") from error
    if options.overlay and summary.predictions:
        try:
            show.picture(options.output).save(options.overlay)
            print(f"overlay      {options.overlay}")
        except (BadInput, OSError, ValueError, pa.ArrowException) as error:
            print(f"overlay      not drawn: {error}")
    return 1 if summary.failed == summary.rows else 0


def format_summary(summary: Summary, output: str, seconds: float) -> str:
    """Format the summary that the command prints at the end.

    Args:
        summary: the summary of the job.
        output: the output of the job.
        seconds: duration of the job in seconds.
    """
    mean = summary.score_sum / summary.predictions if summary.predictions else float("nan")
    stages = ", ".join(f"{spent:.1f} s {stage}" for stage, spent in summary.seconds.items())
    lines = [
        f"rows         {summary.rows} ({summary.failed} failed)",
        f"images       {summary.images}",
        f"predictions  {summary.predictions}, mean predicted IoU {mean:.3f}",
        f"time         {seconds:.1f} s, {summary.rows / seconds:.1f} rows/s ({stages})",
        f"written      {output}",
    ]
    for reason, count in summary.failures.most_common(5):
        lines.append(f"failed       {reason}" + (f" ({count} rows)" if count > 1 else ""))
    return "\n".join(lines)


def _score(options: argparse.Namespace) -> Summary:
    """Run the job and return its summary."""
    from sam_endpoint.model.saved import SavedModel
    from sam_endpoint.scoring import runtime
    from sam_endpoint.scoring.batch import job, sources
    from sam_endpoint.scoring.batch.locations import check_input_outside, parse_location
    from sam_endpoint.scoring.batch.parts import Parts

    parse_location(options.output)  # raises an exception for an invalid name
    if options.input.strip():
        check_input_outside(options.input, options.output)
    files = [str(file) for file in (options.summary, options.overlay) if file]
    source = sources.find(options.input, [options.output, f"{options.output.rstrip('/')}.parts", *files])
    source.check()
    for note in source.notes:
        print(note, file=sys.stderr)
    values = {"mask_encoding": "rle", "orientation": source.orientation, **options.params}
    values.update(on_error="record", response_format="model_card")
    if options.engine == "spark":
        saved = SavedModel.read(runtime.download(options.model))
        return _score_on_spark(options, saved.folder, saved.defaults().read(values), source)
    model = runtime.open_model(options.model, local_paths=True)
    params = model.defaults.read(values)
    described = {
        "input": source.identity,
        "weights": model.weights,
        "params": vars(params),
        "part_rows": options.part_rows,
    }
    parts = Parts(options.output, described, options.overwrite)
    if parts.complete:
        print(f"{options.output} is complete; there is nothing to do")
        summary = job.Summary()
        summary.add(parts.summary())
        return summary
    return job.run(model.engine, params, source, parts, options.part_rows, options.error_threshold)


def _score_on_spark(options: argparse.Namespace, model: Path, params: Params, source: Source) -> Summary:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    from sam_endpoint.model.errors import TooManyFailures
    from sam_endpoint.scoring.batch import spark

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("Segment Anything").config("spark.ui.showConsoleProgress", "true")
    try:
        session = (builder.master(options.master) if options.master else builder).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise CommandError(f"cannot start a Spark session: {str(error).strip().splitlines()[0]}") from error
    try:
        summary = spark.run(session, model, params, source, options.output, options.overwrite, options.part_rows)
    except (PySparkException, Py4JError) as error:
        raise CommandError(f"the Spark job failed: {str(error).strip().splitlines()[0]}") from error
    finally:
        session.stop()
    if 0 <= options.error_threshold < summary.failed:
        raise TooManyFailures(summary.failed, options.error_threshold)
    return summary
