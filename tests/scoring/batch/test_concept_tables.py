"""Tables with texts and examples: CSV and Parquet files through `sam-endpoint score`, and Spark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sam_endpoint.model.mlflow import package
from sam_endpoint.model.params import Params
from sam_endpoint.scoring.batch import sources, spark
from tests import pictures
from tests.coins import COINS, PICTURE, match
from tests.detectors import owl
from tests.scoring.batch.jobs import rows_of, run, same_rows
from tests.warm import python

COLUMNS = ("input_text", "input_points", "input_exemplars", "input_exemplar_labels")
BOX = "[[10, 10, 50, 50]]"
GOOD: list[dict[str, str]] = [
    {"input_text": "cups"},
    {"input_text": '["cups", "red  spoon"]'},
    {"input_exemplars": BOX},
    {"input_exemplars": "[[10, 10, 50, 50], [60, 20, 90, 60]]", "input_exemplar_labels": "[1, 0]"},
]
BAD: list[tuple[dict[str, str], str]] = [
    ({"input_text": " "}, "'input_text': expected a text, or null for every object in the image, got an empty text"),
    ({"input_text": '["cups", ""]'}, "letter, digit or symbol, got an empty text"),
    ({"input_text": json.dumps(["cups"] * 200)}, "expected at most 16 texts in a row (send several rows), got 200"),
    ({"input_text": "x" * 10_000}, "expected a text of at most 200 characters, got text of 10000 characters"),
    ({"input_text": "cups\x07"}, "expected a text without control characters"),
    ({"input_text": "\u200b\u0301"}, "got text of 2 characters without"),
    ({"input_text": "abcdefghijklmnopqrstuvw"}, "expected a text of at most 16 tokens, got 25 tokens"),
    ({"input_text": "cups", "input_points": "[[5, 5]]"}, "expected either concepts or points, boxes and masks"),
    ({"input_text": "cups", "input_exemplars": BOX}, "expected either input_text or input_exemplars"),
    ({"input_exemplars": "[[200, 10, 250, 50]]"}, "expected boxes inside the image of 120 x 100 pixels"),
    ({"input_exemplars": BOX, "input_exemplar_labels": "[1, 0]"}, "expected 1 labels, one per box"),
    ({"input_exemplars": BOX, "input_exemplar_labels": "[2]"}, "each 1 for an example or 0 for a counter-example"),
    ({"input_exemplar_labels": "[1]"}, "expected input_exemplars for the labels"),
]
FAST = {"mask_encoding": "rle", "points_per_side": 8}


@pytest.fixture(scope="module")
def model(sam_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Package a small SAM with a small detector."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    owl(folder / "owl")
    config = {"concept_thresh": 0.0, "local_paths": True, **FAST}
    return package.save(sam_folder, folder / "model", config, detector=folder / "owl")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return a table of all good and bad rows on one image."""
    file = tmp_path_factory.mktemp("table") / "image.png"
    Image.fromarray(pictures.clutter(100, 120)).save(file)
    rows = [*GOOD, *(cells for cells, _ in BAD)]
    return pd.DataFrame([{"image": str(file), "number": i, **row} for i, row in enumerate(rows)])


@pytest.fixture(scope="module")
def answers(model: Path, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the rows of a job that reads the table from a CSV file."""
    folder = tmp_path_factory.mktemp("job")
    table.to_csv(folder / "in.csv", index=False)
    done = run("--model", model, "--input", folder / "in.csv", "--output", folder / "out.parquet")
    assert done.returncode == 0, done.stderr
    assert f"rows         {len(table)} ({len(BAD)} failed)" in done.stdout
    return rows_of(folder / "out.parquet")


def concepts_of(answer: dict[str, Any]) -> list[tuple[str | None, int]]:
    """Return the concept and its index of each instance."""
    return [(entry["concept"], entry["concept_index"]) for entry in answer["predictions"]]


def test_instances_name_their_concept(answers: list[dict[str, Any]]) -> None:
    one, two, example, counter = answers[: len(GOOD)]
    assert [answer["error"] for answer in answers[: len(GOOD)]] == [None] * len(GOOD)
    assert set(concepts_of(one)) == {("cups", 0)}
    assert set(concepts_of(two)) == {("cups", 0), ("red spoon", 1)}
    assert [index for _, index in concepts_of(two)] == sorted(index for _, index in concepts_of(two))
    first = [entry for entry in two["predictions"] if entry["concept_index"] == 0]
    assert same_rows(first, one["predictions"])
    assert set(concepts_of(example)) | set(concepts_of(counter)) <= {(None, 0)}


@pytest.mark.parametrize("position", range(len(BAD)))
def test_a_bad_row_has_its_error_and_no_predictions(position: int, answers: list[dict[str, Any]]) -> None:
    answer, number = answers[len(GOOD) + position], len(GOOD) + position
    assert answer["predictions"] == [] and answer["error"].startswith(f"row {number}, column '")
    assert BAD[position][1] in answer["error"] and len(answer["error"]) < 250


def test_a_parquet_file_has_the_answers_of_a_csv_file(
    model: Path, table: pd.DataFrame, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    table.to_parquet(tmp_path / "in.parquet")
    done = run("--model", model, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    fields = ("predictions", "image_id", "error")
    parquet = [{name: row[name] for name in fields} for row in rows_of(tmp_path / "out.parquet")]
    assert same_rows(parquet, [{name: row[name] for name in fields} for row in answers])


def test_a_parquet_file_may_hold_lists_instead_of_json(
    model: Path, table: pd.DataFrame, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    image = Path(table["image"][0]).read_bytes()
    columns = {
        "image": pa.array([image] * 5),
        "input_text": pa.array([["cups", "red spoon"], None, ["cups"] * 17, [""], None], pa.list_(pa.string())),
        "input_exemplars": pa.array(
            [None, [[10, 10, 50, 50], [60, 20, 90, 60]], None, None, [[130, 10, 150, 50]]],
            pa.list_(pa.list_(pa.float32())),
        ),
        "input_exemplar_labels": pa.array([None, [1, 0], None, None, [1]], pa.list_(pa.int8())),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    done = run("--model", model, "--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out.parquet")
    assert same_rows(rows[0]["predictions"], answers[1]["predictions"])
    assert same_rows(rows[1]["predictions"], answers[3]["predictions"])
    errors = [row["error"] or "" for row in rows]
    assert errors[:2] == ["", ""]
    assert "at most 16 texts in a row" in errors[2] and "got an empty text" in errors[3]
    assert "row 4, column 'input_exemplars': expected boxes inside the image of 120 x 100 pixels" in errors[4]


def test_a_model_without_text_finds_examples_and_records_texts(packaged: Path, tmp_path: Path) -> None:
    cells = [("coin", None), (None, json.dumps([COINS[10].tolist()])), ('["coin"]', None)]
    rows = [{"image": str(PICTURE), "input_text": text, "input_exemplars": boxes} for text, boxes in cells]
    pd.DataFrame(rows).to_csv(tmp_path / "in.csv", index=False)
    params = json.dumps({"points_per_side": 16})
    output = tmp_path / "out.parquet"
    done = run("--model", packaged, "--input", tmp_path / "in.csv", "--output", output, "--params", params)
    assert done.returncode == 0, done.stderr
    text, example, texts = rows_of(output)
    found = match([entry["mask_per_prediction"][0]["bbox"] for entry in example["predictions"]])
    assert len(set(found)) == len(found) >= 20 and None not in found
    assert set(concepts_of(example)) == {(None, 0)}
    for answer in (text, texts):
        assert answer["predictions"] == []
        assert "--detector IDEA-Research/grounding-dino-tiny" in answer["error"]


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    """Run Spark in a process with one worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", python())
        spark_session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
        yield spark_session
        spark_session.stop()


def test_a_spark_job_has_the_answers_of_one_machine(
    session: SparkSession, model: Path, table: pd.DataFrame, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "in.csv", index=False)
    params = Params(on_error="record", concept_thresh=0.0, **FAST)  # type: ignore[arg-type]
    summary = spark.run(session, model, params, sources.find(str(tmp_path / "in.csv")), str(tmp_path / "out"))
    assert (summary.rows, summary.failed) == (len(table), len(BAD))
    assert same_rows(rows_of(tmp_path / "out"), answers)


def test_spark_udf_types_concepts(session: SparkSession, model: Path, table: pd.DataFrame) -> None:
    segment = mlflow.pyfunc.spark_udf(session, str(model), env_manager="local", params={"on_error": "record"})
    image = Path(table["image"][0]).read_bytes()
    rows = [(0, image, '["cups", "red spoon"]', None), (1, image, None, BOX), (2, image, " ", None)]
    frame = session.createDataFrame(
        [(number, bytearray(data), text, boxes) for number, data, text, boxes in rows],
        "number int, image binary, input_text string, input_exemplars string",
    )
    answered = frame.withColumn("answer", segment(F.struct("image", "input_text", "input_exemplars")))
    kind = answered.schema["answer"].dataType.simpleString()
    assert "concept:string,concept_index:bigint" in kind
    collected = [row.answer for row in answered.orderBy("number").collect()]
    expected: Any = mlflow.pyfunc.load_model(str(model)).predict(
        pd.DataFrame([{"image": image, "input_text": '["cups", "red spoon"]'}])
    )
    found = [(entry.concept, entry.concept_index) for entry in collected[0].predictions]
    assert found == [(entry["concept"], entry["concept_index"]) for entry in expected["predictions"][0]]
    assert set(found) == {("cups", 0), ("red spoon", 1)}
    assert collected[1].error is None
    assert {(entry.concept, entry.concept_index) for entry in collected[1].predictions} <= {(None, 0)}
    assert collected[2].predictions == [] and "got an empty text" in collected[2].error
