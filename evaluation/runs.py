"""Log an evaluation as an MLflow run with params, metrics, tables and images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd
from PIL import Image

from sam_endpoint.model.mlflow.package import DEFAULT_TRACKING


def use_default_tracking() -> None:
    """Track runs in `mlflow.db` in the current folder, unless MLFLOW_TRACKING_URI is set."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(DEFAULT_TRACKING)


def check_tracking() -> None:
    """Check the connection to the tracking server. Raises MlflowException."""
    mlflow.search_experiments(max_results=1)


def log_run(
    name: str,
    params: Mapping[str, Any],
    report: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    images: Mapping[str, Image.Image],
    tags: Mapping[str, str],
    metrics: Mapping[str, float] | None = None,
) -> str:
    """Log a run to the current tracking server.

    Args:
        name: The name of the model. The run's name is `evaluate NAME`.
        params: The params of the run.
        report: The report of the model, logged as metrics and as `report.json`.
        tables: The tables by name, each logged as `NAME.json`.
        images: The images by name, each logged as `NAME.png`.
        tags: The tags of the run.
        metrics: The metrics by name; None for those of the report.

    Returns:
        The id of the run.

    Raises:
        MlflowException: The tracking server cannot be reached or rejects the run.
    """
    with mlflow.start_run(run_name=f"evaluate {name}", tags=dict(tags)) as run:
        mlflow.log_params(dict(params))
        mlflow.log_metrics(flatten_metrics(report) if metrics is None else dict(metrics))
        mlflow.log_dict(dict(report), "report.json")
        for title, table in tables.items():
            mlflow.log_table(table, f"{title}.json")
        for title, image in images.items():
            mlflow.log_image(image, f"{title}.png")
    return str(run.info.run_id)


def flatten_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Convert a report to metrics with names that MLflow accepts.

    Args:
        report: The report of a model.

    Returns:
        The values by name, such as `iou/small/1 click`, `boundary/all/box` or `average precision/AP50`.
    """
    metrics: dict[str, float | None] = {}
    for part, title in (("figures", "iou"), ("boundary", "boundary")):
        for size, figures in report[part].items():
            metrics |= {f"{title}/{size}/{name}": value for name, value in figures.items()}
    calibration = report["calibration"]
    metrics |= {f"calibration/{name}": calibration[name] for name in ("mean absolute error", "expected error")}
    metrics |= {f"encoding/{row['encoding']} kept": row["kept"] for row in report["encodings"]}
    metrics |= {f"average precision/{name}": value for name, value in report.get("average precision", {}).items()}
    metrics |= {f"problems/{name}": problem["count"] for name, problem in report["problems"].items()}
    # MLflow rejects commas and apostrophes in names.
    return {
        name.replace(",", "").replace("'", ""): float(value) for name, value in metrics.items() if value is not None
    }
