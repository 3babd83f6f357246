"""The limits that travel inside the MLflow model, for servers that have none of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from sam_endpoint.model.mlflow import package


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.save(package.EMBEDDED, tmp_path_factory.mktemp("limited") / "model")


@pytest.mark.parametrize(
    ("config", "rows", "params", "message", "status"),
    [
        ({"max_rows": 2}, 3, {}, "expected at most 2 rows a request, got 3", 400),
        ({"max_points": 100}, 1, {"points_per_side": 11}, "at most 100 ", 400),
        ({"max_answer_bytes": 10}, 1, {"points_per_side": 1, "pred_iou_thresh": 0.0}, "at most 10 bytes", 400),
        ({"max_seconds": 0.001}, 1, {"points_per_side": 8}, "0.001 seconds", 504),
    ],
)
def test_a_table_over_a_limit_is_rejected(
    saved: Path,
    disc: tuple[bytes, np.ndarray],
    config: dict[str, Any],
    rows: int,
    params: dict[str, Any],
    message: str,
    status: int,
) -> None:
    model = mlflow.pyfunc.load_model(str(saved), model_config=config)
    frame = pd.DataFrame({"image": [disc[0]] * rows})
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(frame, params={"stability_score_thresh": 0.0, **params})
    assert caught.value.get_http_status_code() == status


@pytest.mark.parametrize("config", [{"max_rows": -1}, {"max_points": "many"}, {"max_seconds": True}, {"max_rows": 1.5}])
def test_limits_are_checked_when_the_model_is_packaged(config: dict[str, Any], tmp_path: Path) -> None:
    (name,) = config
    with pytest.raises(ValueError, match=f"setting '{name}'"):
        package.save(package.EMBEDDED, tmp_path / "model", config)
