"""Write the results of an evaluation of concepts to the terminal, to JSON and PNG files, and to MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from PIL import Image

from sam_endpoint.evaluation import runs
from sam_endpoint.evaluation.coco import CocoAnnotation, CocoDataset
from sam_endpoint.evaluation.concepts.metrics import IOU_THRESHOLDS, count, summarize, sweep
from sam_endpoint.evaluation.detections import average_precision
from sam_endpoint.evaluation.options import EvaluationOptions
from sam_endpoint.evaluation.report import format_average_precision
from sam_endpoint.scoring.overlay import curves, sheet

if TYPE_CHECKING:
    from sam_endpoint.evaluation.concepts.evaluate import ConceptResults

STEPS = 20  # minimum scores on the axis of a plot
SHOWN = 10  # categories that are printed
Report = dict[str, Any]


def write_results(
    options: EvaluationOptions,
    dataset: CocoDataset,
    all_results: Sequence[ConceptResults],
    image_ids: Sequence[object],
    to_find: Sequence[CocoAnnotation],
) -> None:
    """Print the results of one or two models, and write and log them according to the options.

    Args:
        options: The options of the evaluation.
        dataset: The data set, after the last image.
        all_results: The results of each model.
        image_ids: The ids of the evaluated images.
        to_find: The annotations that are to be found.

    Raises:
        MlflowException: The tracking server cannot be reached.
        OSError: A file cannot be written.
    """
    reports = [build_report(options, dataset, results, image_ids, to_find) for results in all_results]
    for content in reports:
        print(format_report(content), end="\n\n")
    if dataset.problems.counts:
        print(f"problems of the data:\n{dataset.problems.format_lines()}\n")
    plots = draw_curves(reports)
    if options.output:
        content = reports[0] if len(reports) == 1 else {"models": reports}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(content, indent=2) + "\n")
    if options.sheet:
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(all_results[0].images, columns=4).save(options.sheet)
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        plots.save(options.pictures / "concepts.png")
    if options.log:
        for model, content in zip(options.models, reports, strict=True):
            params = {"model_uri": model} | {
                name: content[name] for name in ("data", "concepts", "images", "min score")
            }
            metrics = {
                f"{part}/{name}": value
                for part in ("concept metrics", "average precision")
                for name, value in content[part].items()
                if value is not None
            }
            tables = {"categories": pd.DataFrame(content["categories"])}
            run_id = runs.log_run(content["model"], params, content, tables, {"concepts": plots}, {}, metrics)
            print(f"logged      run {run_id}  (tracking: {mlflow.get_tracking_uri()})")


def build_report(
    options: EvaluationOptions,
    dataset: CocoDataset,
    results: ConceptResults,
    image_ids: Sequence[object],
    to_find: Sequence[CocoAnnotation],
) -> Report:
    """Return the report of one model, as in the JSON file. The arguments are those of `write_results`."""
    counts = count(results.pairs, results.min_score)
    positive, negative = (int(number) for number in counts.presence.sum(1)[::-1])
    f1 = counts.positive_f1
    scores = np.linspace(results.min_score, 1, STEPS) if results.compares else np.linspace(0.05, 0.95, STEPS - 1)
    by_category: dict[object, list[Any]] = {}
    for pair in results.pairs:
        by_category.setdefault(pair.category_id, []).append(pair)
    categories = []
    for category_id, pairs in by_category.items():
        own = count(pairs, results.min_score)
        present, absent = (int(number) for number in own.presence.sum(1)[::-1])
        row = {"category": dataset.categories[category_id], "present": present, "absent": absent, "instances": own.true}
        categories.append({**row, **summarize(own)})
    return {
        "model": results.name,
        **dataset.settings,
        "concepts": options.concepts,
        "min score": results.min_score,
        "positive pairs": positive,
        "negative pairs": negative,
        "instances": counts.true,
        "concept metrics": summarize(counts),
        "average precision": average_precision(to_find, dataset.categories, image_ids, results.detected_masks),
        "pmF1 by IoU": None if f1 is None else dict(zip(_labels(), f1.round(4).tolist(), strict=True)),
        "by min score": sweep(results.pairs, [float(score) for score in scores.round(4)]),
        "categories": categories,
        "problems": dataset.problems.to_dict(),
    }


def _labels() -> list[str]:
    return [f"{threshold:.2f}" for threshold in IOU_THRESHOLDS]


def format_report(content: Mapping[str, Any]) -> str:
    """Format the report of one model as text tables."""
    pairs = f"{content['positive pairs']} positive and {content['negative pairs']} negative pairs"
    lines = [
        f"{content['model']} on {content['data']}, by {content['concepts']}: {content['images']} images, {pairs}",
        "",
        f"{'concepts':18}{'value':>9}",
    ]
    lines += [f"{name:18}{_cell(value)}" for name, value in content["concept metrics"].items()]
    lines += ["", format_average_precision(content["average precision"]).replace("masks of boxes", "instances     ", 1)]
    columns = ("cgF1", "pmF1", "IL_MCC")
    heads = "".join(f"{name:>9}" for name in ("present", "absent", *columns))
    lines += ["", f"{'category':18}{heads}"]
    for row in sorted(content["categories"], key=lambda row: row["pmF1"] or 0)[:SHOWN]:
        cells = "".join(_cell(row[name]) for name in columns)
        lines.append(f"{str(row['category'])[:17]:18}{row['present']:9d}{row['absent']:9d}{cells}")
    if len(content["categories"]) > SHOWN:
        lines.append(
            f"the {SHOWN} of {len(content['categories'])} categories with the lowest pmF1; --output writes all"
        )
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:9.3f}"


def draw_curves(reports: Sequence[Report]) -> Image.Image:
    """Plot pmF1 by IoU threshold, and the metrics by minimum score, side by side.

    For several models, each model has a line of cgF1 in the second plot, or of pmF1 if the data has no negative pair.
    """
    by_iou = {
        content["model"]: (IOU_THRESHOLDS.tolist(), list(content["pmF1 by IoU"].values()))
        for content in reports
        if content["pmF1 by IoU"]
    }
    names = ("cgF1", "pmF1", "IL_MCC")
    by_score: dict[str, tuple[list[float], list[float]]] = {}
    for content in reports:
        lines = {name: _line(content["by min score"], name) for name in names}
        known = {name: line for name, line in lines.items() if line[0]}
        if len(reports) > 1:
            known = {f"{content['model']}, {name}": line for name, line in list(known.items())[:1]}
        by_score |= known
    return sheet([curves(by_iou, "IoU threshold", "pmF1"), curves(by_score, "minimum score", "metric")], columns=2)


def _line(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Return the (xs, ys) of a metric by minimum score, without undefined values."""
    known = [(row["min_score"], row[name]) for row in rows if row[name] is not None]
    return [x for x, _ in known], [y for _, y in known]
