"""Write the results of an evaluation to the terminal, to JSON and PNG files, and to MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from PIL import Image

from sam_endpoint.evaluation import metrics, plots, report, runs
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.detections import average_precision
from sam_endpoint.evaluation.ground_truth import GroundTruth
from sam_endpoint.evaluation.options import EvaluationOptions
from sam_endpoint.evaluation.results import ModelResults
from sam_endpoint.scoring.overlay import sheet

SETTINGS = ("data", "scenes", "seed", "images")  # settings of a data set that are logged as params


def write_results(
    options: EvaluationOptions,
    all_results: Sequence[ModelResults],
    ground_truth: GroundTruth,
    image_ids: Sequence[object],
) -> None:
    """Print the results of one or two models, and write and log them according to the options.

    Args:
        options: The options of the evaluation.
        all_results: The results of each model.
        ground_truth: The data set, after the last image.
        image_ids: The ids of the evaluated images.

    Raises:
        MlflowException: The tracking server cannot be reached.
        OSError: A file cannot be written.
    """
    reports = [_build_report(results, ground_truth, image_ids, bool(options.boxes)) for results in all_results]
    tables = [results.objects for results in all_results]
    differences = metrics.difference_table(*tables) if len(tables) == 2 else None
    names = [results.name for results in all_results]
    print(f"{', '.join(names)} on {ground_truth.settings['data']}")
    print(ground_truth.sizes, end="\n\n")
    if differences is None:
        print(report.format_report(reports[0]))
    else:
        print(report.format_comparison(names[0], names[1], differences, metrics.scalar_pairs(*reports)))
    if ground_truth.problems.counts:
        print(f"\nproblems of the data:\n{ground_truth.problems.format_lines()}")

    curves = plots.draw_summary(dict(zip(names, tables, strict=True)))
    drawings = [
        {"worst": plots.draw_cases(results.worst_cases), "typical": plots.draw_typical(results.drawn_cases)}
        for results in all_results
    ]
    if options.output:
        _write_json(options.output, reports, differences)
    if options.sheet:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(all_results[0].images, columns=4).save(options.sheet)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        curves.save(options.pictures / "curves.png")
        for number, drawn in enumerate(drawings, 1):
            for name, drawing in drawn.items():
                drawing.save(options.pictures / (f"{name}.png" if len(drawings) == 1 else f"{name}-{number}.png"))
    if options.log:
        images = [{"curves": curves, **drawn} for drawn in drawings]
        _log_runs(options.models, reports, tables, images, differences)


def _build_report(
    results: ModelResults, ground_truth: GroundTruth, image_ids: Sequence[object], with_precision: bool
) -> dict[str, Any]:
    """Return the report of one model, as in the JSON file."""
    content = {"model": results.name, **ground_truth.settings, "sizes": ground_truth.sizes}
    content |= metrics.summarize(results.objects)
    if with_precision and isinstance(ground_truth, CocoDataset):
        content["average precision"] = average_precision(
            ground_truth.annotations, ground_truth.categories, image_ids, results.detected_masks
        )
    return {**content, "problems": ground_truth.problems.to_dict()}


def _write_json(file: Path, reports: list[dict[str, Any]], differences: pd.DataFrame | None) -> None:
    content = reports[0]
    if differences is not None:
        content = {"models": reports, "difference": json.loads(differences.to_json(orient="records"))}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


def _log_runs(
    models: Sequence[str],
    reports: Sequence[dict[str, Any]],
    tables: Sequence[pd.DataFrame],
    images: Sequence[dict[str, Image.Image]],
    differences: pd.DataFrame | None,
) -> None:
    """Log a run for each model. The second run has the differences, and a tag with the id of the first run."""
    tags: dict[str, str] = {}
    for model, content, objects, drawn in zip(models, reports, tables, images, strict=True):
        params = {"model_uri": model, **{name: content[name] for name in SETTINGS if name in content}}
        artifacts = {
            "things": objects,
            "calibration": metrics.calibration_table(objects),
            "encodings": metrics.encoding_table(objects),
        }
        if tags and differences is not None:
            artifacts["difference"] = differences
        run_id = runs.log_run(content["model"], params, content, artifacts, drawn, tags)
        tags = {"compared_with": run_id}
        print(f"logged      run {run_id}  (tracking: {mlflow.get_tracking_uri()})")
