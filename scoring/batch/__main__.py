"""Scores tables of images and prompts, or folders of images, with an MLflow model.

python -m scoring.batch --model build/model --input samples/prompts.csv --output out/predictions.parquet
python -m scoring.batch show --predictions out/predictions.parquet --output out/overlay.png
python -m scoring.batch export --predictions out/predictions.parquet --format coco --output out/coco.json
python -m scoring.batch annotate --data samples --output out/labels
python -m scoring.batch embed --model build/model --images samples --store out/embeddings
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from model.contract import Params
from model.errors import BadInput, BadParameter
from model.package import json_object
from scoring import models
from scoring.batch import annotate, embed, export, job, show, sources
from scoring.batch.parts import OtherJob, Parts


def told(summary: job.Summary, output: str, seconds: float) -> str:
    """The summary, for people."""
    mean = summary.score_sum / summary.predictions if summary.predictions else float("nan")
    went = ", ".join(f"{spent:.1f} s {where}" for where, spent in summary.seconds.items())
    lines = [
        f"rows         {summary.rows} ({summary.failed} failed)",
        f"images       {summary.images}",
        f"predictions  {summary.predictions}, mean predicted IoU {mean:.3f}",
        f"time         {seconds:.1f} s, {summary.rows / seconds:.1f} rows/s ({went})",
        f"written      {output}",
    ]
    for reason, times in summary.failures.most_common(5):
        lines.append(f"failed       {reason}" + (f" ({times} rows)" if times > 1 else ""))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scoring.batch", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="build/model", help="URI of an MLflow model (default: %(default)s)")
    parser.add_argument(
        "--input",
        required=True,
        help="table of images and prompts (.csv, .parquet, .jsonl), folder of tables or of images, glob, or fsspec URL",
    )
    parser.add_argument("--output", required=True, help="a .parquet file, or a folder for parts; local or fsspec URL")
    parser.add_argument("--overwrite", action="store_true", help="start anew where another job's output is")
    parser.add_argument(
        "--part-rows", type=int, default=512, help="rows a part, scored together (default: %(default)s)"
    )
    parser.add_argument(
        "--error-threshold", type=int, default=-1, help="most rows that may fail; -1 any number (default: %(default)s)"
    )
    parser.add_argument(
        "--engine",
        choices=("local", "spark"),
        default="local",
        help="this process, or a Spark cluster (default: local)",
    )
    parser.add_argument("--master", help="the cluster's URL (default: what Spark is set to, else this machine)")
    parser.add_argument("--summary", type=Path, help="also write the summary into this .json")
    parser.add_argument("--overlay", type=Path, help="also draw the first images with their masks into this .png")
    parser.add_argument("--params", type=json_object, default={}, help="as JSON (default: %(default)s)")
    return parser


def _done(chosen: argparse.Namespace) -> job.Summary:
    """The job's summary, once it is done."""
    source = sources.find(chosen.input)
    source.check()
    folder = download_artifacts(models.where(chosen.model))
    model = models.load(folder, local_paths=True)
    given = {"mask_encoding": "rle", **chosen.params, "on_error": "record", "response_format": "model_card"}
    python_model = model.unwrap_python_model()
    params = Params.read(python_model.with_defaults(given))
    if chosen.engine == "spark":
        return _on_spark(chosen, Path(folder), params, source)
    described = {
        "input": source.identity,
        "weights": (model.metadata.metadata or {}).get("weights_sha256"),
        "params": vars(params),
        "part_rows": chosen.part_rows,
    }
    parts = Parts(chosen.output, described, chosen.overwrite)
    if parts.complete:
        print(f"{chosen.output} is complete already; nothing to do")
        summary = job.Summary()
        summary.add(parts.summary())
        return summary
    return job.run(python_model.scorer, params, source, parts, chosen.part_rows, chosen.error_threshold)


def _on_spark(chosen: argparse.Namespace, model: Path, params: Params, source: sources.Source) -> job.Summary:
    try:
        from pyspark.sql import SparkSession

        from scoring.batch import spark
    except ImportError:
        raise sources.BadTable("--engine spark needs pyspark: pip install -r requirements-spark.txt") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("Segment Anything").config("spark.ui.showConsoleProgress", "true")
    session = (builder.master(chosen.master) if chosen.master else builder).getOrCreate()
    try:
        summary = spark.run(session, model, params, source, chosen.output, chosen.overwrite, chosen.part_rows)
    finally:
        session.stop()
    if 0 <= chosen.error_threshold < summary.failed:
        raise job.TooManyFailures(summary.failed, chosen.error_threshold)
    return summary


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = {"annotate": annotate.main, "embed": embed.main, "export": export.main, "show": show.main}
    if arguments and arguments[0] in commands:
        return commands[arguments[0]](arguments[1:])
    chosen = _parser().parse_args(arguments)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    began = time.perf_counter()
    try:
        summary = _done(chosen)
    except (sources.BadTable, OtherJob, BadParameter, MlflowException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what is written stays, and the same command goes on from there", file=sys.stderr)
        return 2
    except job.TooManyFailures as error:
        print(f"error: {error}; what is written stays", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(told(summary, chosen.output, time.perf_counter() - began))
    if chosen.summary:
        chosen.summary.parent.mkdir(parents=True, exist_ok=True)
        chosen.summary.write_text(json.dumps(summary.noted(), indent=2) + "\n")
    if chosen.overlay and summary.predictions:
        chosen.overlay.parent.mkdir(parents=True, exist_ok=True)
        try:
            show.picture(chosen.output).save(chosen.overlay)
            print(f"overlay      {chosen.overlay}")
        except BadInput as error:
            print(f"overlay      not drawn: {error}")
    return 1 if summary.failed == summary.rows else 0


if __name__ == "__main__":
    sys.exit(main())
