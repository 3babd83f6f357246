"""An evaluation as a run of MLflow: params, metrics, tables, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd
from PIL import Image


def log(
    name: str,
    params: Mapping[str, Any],
    report: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, Image.Image],
    tags: Mapping[str, str],
) -> str:
    """A run `evaluate NAME` on the tracking server in use, with the report as `report.json`, the tables as `TABLE.json`
    and the pictures as `PICTURE.png`. Returns its id. Raises MlflowException."""
    with mlflow.start_run(run_name=f"evaluate {name}", tags=dict(tags)) as run:
        mlflow.log_params(dict(params))
        mlflow.log_metrics(metrics(report))
        mlflow.log_dict(dict(report), "report.json")
        for title, table in tables.items():
            mlflow.log_table(table, f"{title}.json")
        for title, picture in pictures.items():
            mlflow.log_image(picture, f"{title}.png")
    return str(run.info.run_id)


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one model by names such as `iou/small/1 click`, `boundary/all/box`, `average precision/AP50`."""
    found: dict[str, float] = {}
    for part, title in (("figures", "iou"), ("boundary", "boundary")):
        for group, figures in report[part].items():
            found |= {f"{title}/{group}/{name}": value for name, value in figures.items()}
    calibration = report["calibration"]
    found |= {f"calibration/{name}": calibration[name] for name in ("mean absolute error", "expected error")}
    found |= {f"encoding/{one['encoding']} kept": one["kept"] for one in report["encodings"]}
    found |= {f"average precision/{name}": value for name, value in report.get("average precision", {}).items()}
    found |= {f"problems/{name}": one["count"] for name, one in report["problems"].items()}
    # MLflow takes no commas and no apostrophes in names.
    return {name.replace(",", "").replace("'", ""): float(value) for name, value in found.items() if value is not None}
