"""Record a fine-tuning: write a report and pictures to the work folder, log an MLflow run, and register the model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow

from sam_endpoint.evaluation import runs
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.runtime import OpenedModel, without_password
from sam_endpoint.training.finetune import pictures
from sam_endpoint.training.finetune.data import DataSplit
from sam_endpoint.training.finetune.gate import BASE, CANDIDATE, Comparison, Verdict
from sam_endpoint.training.finetune.options import FinetuneOptions, Plan


@dataclass(frozen=True)
class Record:
    """The inputs and the history of a fine-tuning.

    Attributes:
        options: The options.
        plan: The plan with the number of steps.
        base: The base model.
        split: The data.
        problems: The images and masks that were left out.
        history: A row of metrics for each validation.
    """

    options: FinetuneOptions
    plan: Plan
    base: OpenedModel
    split: DataSplit
    problems: Problems
    history: Sequence[Mapping[str, float]]


def write(
    record: Record,
    held_out: Comparison,
    guards: Sequence[Comparison],
    verdict: Verdict,
    models: Mapping[str, Segmenter],
) -> list[Path]:
    """Write `gate.json` and the pictures to the work folder, and return the files. Raises OSError."""
    folder = record.options.work_folder
    report = {
        "verdict": verdict.name,
        "reasons": list(verdict.reasons),
        "figure": record.options.figure,
        "margin": record.options.margin,
        "base": record.base.describe(),
        "plan": record.plan.to_dict(),
        "data_sha256": record.split.digest,
        "categories": list(record.split.categories),
        "problems": record.problems.to_dict(),
        "history": list(record.history),
        "held-out": held_out.to_dict(),
        "guards": [guard.to_dict() for guard in guards],
    }
    files = [folder / name for name in ("gate.json", "training.png", "comparison.png", "changes.png")]
    files[0].write_text(json.dumps(report, indent=2) + "\n")
    drawings = (
        pictures.draw_training(record.history),
        pictures.draw_comparison(held_out),
        pictures.draw_changes(held_out, models, record.split.open_held_out()),
    )
    for file, drawing in zip(files[1:], drawings, strict=True):
        drawing.save(file)
    print(f"report      {', '.join(str(file) for file in files)}")
    return files


def log(
    record: Record, held_out: Comparison, guards: Sequence[Comparison], verdict: Verdict, files: Sequence[Path]
) -> None:
    """Log the fine-tuning and its model as one MLflow run, register the model, and set the aliases.

    Raises:
        MlflowException: The tracking server cannot be reached or rejects something.
    """
    options = record.options
    described = record.base.describe()
    tags = {
        "verdict": verdict.name,
        "data_sha256": record.split.digest,
        "base_source": without_password(options.model),
        **{f"base_{name}": str(described[name]) for name in ("run_id", "version") if described.get(name)},
    }
    params = {
        **record.plan.to_dict(),
        "model_uri": without_password(options.model),
        "data": Path(options.data).name,
        "val": Path(options.val).name or f"holdout {options.holdout:g}",
        "categories": ", ".join(record.split.categories)[:500],
        "gate": f"{options.figure} above {options.margin:g}",
    }
    with mlflow.start_run(run_name=f"finetune {options.register or options.output.name}", tags=tags) as run:
        mlflow.log_params(params)
        for row in record.history:
            mlflow.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        mlflow.log_metrics(_metrics(held_out, guards, record.problems))
        for file in files:
            mlflow.log_artifact(str(file))
        mlflow.log_table(held_out.tables[1], "things.json")
        uri, version = package.log_model(options.output, options.register or None)
    print(f"logged      {uri}  (run {run.info.run_id}, tracking: {without_password(mlflow.get_tracking_uri())})")
    client = mlflow.MlflowClient()
    if version is None:
        return
    if options.alias:
        client.set_registered_model_alias(options.register, options.alias, version)
        print(f"alias       models:/{options.register}@{options.alias} is version {version}")
    if options.promote and verdict.promotes:
        client.set_registered_model_alias(options.register, options.promote, version)
        print(f"promoted    models:/{options.register}@{options.promote} is version {version}")
    elif options.promote:
        print(f"refused     models:/{options.register}@{options.promote} stays as it is: {verdict.name}")


def _metrics(held_out: Comparison, guards: Sequence[Comparison], problems: Problems) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for comparison in (held_out, *guards):
        prefix = "" if comparison is held_out else f"guard {_clean(comparison.name)}/"
        for title, report in zip((BASE, CANDIDATE), comparison.reports, strict=True):
            flat = runs.flatten_metrics({**report, "problems": {}})
            metrics |= {f"{prefix}{title}/{name}": value for name, value in flat.items()}
        for name, interval in comparison.intervals.items():
            for part in ("mean", "lower", "upper"):
                metrics[f"{prefix}difference/{name.replace(',', '')}/{part}"] = getattr(interval, part)
    return metrics | {f"problems/{_clean(name)}": float(count) for name, count in problems.counts.items()}


def _clean(name: str) -> str:
    """Return a name without the characters that MLflow rejects in names of metrics."""
    return "".join(character for character in name if character.isalnum() or character in "_-. /")
