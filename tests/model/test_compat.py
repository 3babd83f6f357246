"""The workarounds for faults of MLflow: MLflow still has the faults, and the workarounds change nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

from sam_endpoint.model.mlflow.compat import RequestError, accept_untyped_columns
from tests.conftest import ROOT

UNTYPED = "Schema([ColSpec(AnyType(), 'image'), ColSpec(DataType.long, 'n')])"
IMPORTS = "from mlflow.types import ColSpec, DataType, Schema; from mlflow.types.schema import AnyType"


def test_mlflow_itself_still_rejects_untyped_columns() -> None:
    """If this test fails, MLflow has fixed the fault, and `accept_untyped_columns` can be deleted."""
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORTS}; {UNTYPED}.pandas_types()"], capture_output=True, text=True
    )
    assert done.returncode == 1 and "not DataType" in done.stderr


def test_untyped_columns_are_objects_and_other_schemas_are_unchanged() -> None:
    accept_untyped_columns()
    method = Schema.pandas_types
    accept_untyped_columns()
    assert Schema.pandas_types is method
    untyped = Schema([ColSpec(AnyType(), "image"), ColSpec(DataType.long, "n")])
    assert [kind.kind for kind in untyped.pandas_types()] == ["O", "i"]
    assert [kind.kind for kind in Schema([ColSpec(DataType.double, "x")]).pandas_types()] == ["f"]
    tensor = Schema([TensorSpec.from_json_dict(type="tensor", **{"tensor-spec": {"dtype": "float32", "shape": [1]}})])
    with pytest.raises(MlflowException, match="numpy_types"):
        tensor.pandas_types()


CONVERT = """
import pandas as pd
from mlflow import pyfunc
from pyspark.sql.types import LongType, StringType, StructField, StructType
kind = StructType([StructField("error", StringType()), StructField("area", LongType())])
if KEEP:
    from sam_endpoint.model.mlflow.compat import keep_missing_text
    keep_missing_text()
    convert = pyfunc._convert_struct_values
    keep_missing_text()
    assert pyfunc._convert_struct_values is convert
frame = pd.DataFrame({"error": [None, "bad", None], "area": [1, 2, 3]}, dtype=object)
converted = pyfunc._convert_struct_values(frame, kind)
print([text if text is None else str(text) for text in converted["error"]], converted["area"].tolist())
"""


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("False", "['None', 'bad', 'None'] [1, 2, 3]"), ("True", "[None, 'bad', None] [1, 2, 3]")],
)
def test_spark_udf_keeps_missing_text(keep: str, expected: str) -> None:
    """If the first case fails, MLflow has fixed the fault, and `keep_missing_text` can be deleted."""
    done = subprocess.run(
        [sys.executable, "-c", CONVERT.replace("KEEP", keep)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == expected


def test_mlflow_cannot_extend_the_message_of_a_refusal() -> None:
    refusal = RequestError("expected a box")
    refusal.message = "Failed to predict data 'secret'. Error: expected a box"
    assert refusal.message == "expected a box" and "secret" not in refusal.serialize_as_json()  # type: ignore[no-untyped-call]  # MLflow has no hints there
    mlflow_error = MlflowException("expected a box")
    mlflow_error.message = "more"
    assert mlflow_error.message == "more"
