"""Jobs on a real Spark cluster: a master and two workers of one core each, as processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sam_endpoint.model.errors import BadData, OutputConflict
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.params import Params
from sam_endpoint.scoring.batch import sources, spark
from tests import pictures
from tests.conftest import free_port
from tests.scoring.batch.jobs import rows_of, run, same_rows, table_of
from tests.videos import disc_frames, write_video
from tests.warm import python

EXECUTOR = "CoarseGrainedExecutorBackend"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the cluster, and return its URL and the working folder of its workers."""
    folder = tmp_path_factory.mktemp("cluster")
    home = str(Path(pyspark.__file__).parent)
    os.environ["PYSPARK_PYTHON"] = python()
    environment = {**os.environ, "SPARK_HOME": home, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1"}
    url = f"spark://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    options = ["--host", "127.0.0.1", "--webui-port", "0"]
    commands = [["master.Master", *options, "--port", port]]
    for i in (1, 2):
        commands.append(["worker.Worker", *options, "--cores", "1", "--memory", "2g", "-d", str(folder / f"{i}"), url])
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"log-{len(running)}").open("wb") as log:
                words = [f"{home}/bin/spark-class", f"org.apache.spark.deploy.{command[0]}", *command[1:]]
                running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
            until = time.monotonic() + 60
            ready = "New state: ALIVE" if len(running) == 1 else "Successfully registered with master"
            while ready not in (folder / f"log-{len(running) - 1}").read_text():
                assert time.monotonic() < until, (folder / f"log-{len(running) - 1}").read_text()
                time.sleep(0.1)
        yield url, folder
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(30)


@pytest.fixture(scope="module")
def table(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of 90 rows."""
    file = tmp_path_factory.mktemp("table") / "table.csv"
    table_of(photos, 90).to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def expected(packaged: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the results of the table without Spark."""
    output = tmp_path_factory.mktemp("expected") / "out.parquet"
    done = run("--model", packaged, "--input", table, "--output", output)
    assert done.returncode == 0, done.stderr
    return rows_of(output)


def executors(folder: Path) -> list[int]:
    """Return the ids of all executor processes that work inside a folder."""
    processes = []
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and (entry / "cwd").resolve().is_relative_to(folder)
            if ours and EXECUTOR in (entry / "cmdline").read_text():
                processes.append(int(entry.name))
        except OSError:
            continue  # the process has ended
    return sorted(processes)


def test_the_output_has_every_row_once_after_an_executor_is_killed(
    cluster: tuple[str, Path], packaged: Path, table: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    url, folder = cluster
    output = tmp_path / "out"
    command = [python(), "-m", "sam_endpoint", "score", "--model", packaged, "--input", table, "--output", output]
    command += ["--engine", "spark", "--master", url, "--part-rows", "7", "--summary", tmp_path / "summary.json"]
    with (tmp_path / "log").open("w+") as log:
        job = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        until = time.monotonic() + 240
        while "model loaded in" not in "".join(file.read_text() for file in folder.rglob("stderr")):
            assert job.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        victim, *other_executors = executors(folder)
        assert other_executors
        os.kill(victim, signal.SIGKILL)
        assert job.wait(300) == 0, (tmp_path / "log").read_text()
    assert "Lost executor" in (tmp_path / "log").read_text()
    assert [row["number"] for row in rows_of(output)] == [str(number) for number in range(90)]
    assert same_rows(rows_of(output), expected)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"] == 90
    assert summary["failed"] == sum(row["error"] is not None for row in expected) > 0
    assert summary["images"] == 11
    assert summary["predictions"] == 90 - summary["failed"]
    assert list(summary["failures"].values()) == [summary["failed"]]


@pytest.fixture(scope="module")
def session(cluster: tuple[str, Path]) -> Iterator[SparkSession]:
    """Connect to the cluster."""
    spark_session = SparkSession.builder.master(cluster[0]).config("spark.driver.host", "127.0.0.1").getOrCreate()
    yield spark_session
    spark_session.stop()


def count_loads(folder: Path) -> int:
    """Return how many times the executors have loaded a model."""
    return sum(file.read_text().count("model loaded in") for file in folder.rglob("stderr"))


def test_loads_a_model_per_worker_and_scores_each_image_in_one_task(
    session: SparkSession,
    cluster: tuple[str, Path],
    packaged: Path,
    table: Path,
    expected: list[dict[str, Any]],
    tmp_path: Path,
) -> None:
    before = count_loads(cluster[1])
    halves = pd.read_csv(table, dtype=str)
    (tmp_path / "in").mkdir()
    halves[:40].to_csv(tmp_path / "in" / "a.csv", index=False)
    halves[40:].to_json(tmp_path / "in" / "b.jsonl", orient="records", lines=True)
    params = Params(mask_encoding="rle", on_error="record")
    source = sources.find(str(tmp_path / "in"))
    summary = spark.run(session, packaged, params, source, str(tmp_path / "out"), rows_at_once=5)
    assert summary.rows == 90
    assert count_loads(cluster[1]) - before == 2  # for two workers, which run 16 tasks
    rows = rows_of(tmp_path / "out")
    assert [row["number"] for row in rows] == [str(number) for number in range(90)]
    answers = [{name: row[name] for name in ("predictions", "image_id")} for row in rows]
    assert same_rows(answers, [{name: row[name] for name in ("predictions", "image_id")} for row in expected])

    gathered = spark.group_by_image(session, source).select("image", F.spark_partition_id().alias("task"))
    places: pd.DataFrame = gathered.distinct().toPandas()
    assert len(places) == places["image"].nunique() == 12
    assert places["task"].nunique() > 1


def test_rejects_an_existing_output_and_a_column_that_appears_late(
    session: SparkSession, packaged: Path, table: Path, tmp_path: Path
) -> None:
    params = Params(on_error="record")
    with pytest.raises(ValueError, match="exists; choose another --output, or replace it with --overwrite"):
        spark.run(session, packaged, params, sources.find(str(table)), str(tmp_path))
    lines = [{"image": "none.png"}] * 1000 + [{"image": "none.png", "late": 1}]
    (tmp_path / "late.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        BadData, match=r"near row 1000 of table 1, .*: the column 'late' does not occur in the first rows"
    ):
        spark.run(session, packaged, params, sources.find(str(tmp_path / "late.jsonl")), str(tmp_path / "out"))


def test_spark_and_one_machine_have_the_same_results_for_tables_of_every_kind(
    session: SparkSession, packaged: Path, tmp_path: Path
) -> None:
    """The tables have broken lines, structs and lists of bytes, types that Spark lacks, and ids of earlier images."""
    content, box = pictures.disc()[0], [[68, 38, 153, 123]]
    struct = pa.array([{"bytes": content, "path": "own.png"}, {"bytes": b"no", "path": None}, None])
    columns = {
        "input_boxes": pa.array([box] * 3),
        "image_id": ["a", "", "a"],
        "shop.no": pa.array([1, 2, 3], pa.uint8()),
        "views": pa.array(["x", None, "y"], pa.string_view()),
        "kind": pa.array(["x", "x", "y"]).dictionary_encode(),
        "time": pa.array([1, 2, 3], pa.time32("s")),
    }
    (tmp_path / "disc.png").write_bytes(content)
    pq.write_table(pa.table({"image": struct, **columns}), tmp_path / "hf.parquet")
    lists = pa.array([list(content), [1], None], pa.list_(pa.uint8()))
    pq.write_table(pa.table({"image": lists, **columns}), tmp_path / "u8.parquet")
    row = f'{tmp_path}/disc.png,"{box}"'
    (tmp_path / "in.csv").write_text(f"\ufeffImage,Input Boxes,shop\n{row},a\n{row},a,b\n{row}\n")
    for name in ("hf.parquet", "u8.parquet", "in.csv"):
        local, output = tmp_path / f"{name}-local.parquet", tmp_path / f"{name}-spark"
        done = run("--model", packaged, "--input", tmp_path / name, "--output", local)
        assert done.returncode == 0, done.stderr
        params = Params(mask_encoding="rle", on_error="record")
        summary = spark.run(session, packaged, params, sources.find(str(tmp_path / name)), str(output))
        expected = rows_of(local)
        for item in expected:
            item.update({"time": str(item["time"])} if "time" in item else {})
        assert same_rows(rows_of(output), expected)
        errors = [item["error"] for item in expected]
        assert [error is None for error in errors] == [True, False, name != "in.csv"], errors
        assert summary.failed == 3 - sum(error is None for error in errors)
        assert all(reason.startswith(("column 'image'", "expected 3 fields")) for reason in summary.failures)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputConflict, match="thesis' exists and is not the output of a job"):
        spark.run(session, packaged, params, sources.find(str(tmp_path / "in.csv")), str(tmp_path / "thesis"), True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_spark_keeps_columns_with_names_that_it_uses_itself(
    session: SparkSession, packaged: Path, tmp_path: Path
) -> None:
    """Some names differ only in case, also from the output's columns; others are those that the job uses inside."""
    (tmp_path / "disc.png").write_bytes(pictures.disc()[0])
    columns = ["_row", "_source", "Shop", "shop", "Error", "PREDICTIONS", "_column_2", "a.b", "price; eur (a)=b"]
    row = {"image": f"{tmp_path}/disc.png", "Input Boxes": "[[68, 38, 153, 123]]"}
    rows = [{**row, **{name: f"{name} {number}" for name in columns}} for number in range(3)]
    pd.DataFrame(rows).to_csv(tmp_path / "in.csv", index=False)
    done = run("--model", packaged, "--input", tmp_path / "in.csv", "--output", tmp_path / "local.parquet")
    assert done.returncode == 0, done.stderr
    params = Params(mask_encoding="rle", on_error="record")
    summary = spark.run(session, packaged, params, sources.find(str(tmp_path / "in.csv")), str(tmp_path / "out"))
    assert (summary.rows, summary.failed) == (3, 0)
    written = rows_of(tmp_path / "out")
    assert [list(row) for row in written] == [
        ["image", "input_boxes", *columns, "predictions", "image_id", "error"] for _ in range(3)
    ]
    assert [row["Error"] for row in written] == ["Error 0", "Error 1", "Error 2"]
    assert same_rows(written, rows_of(tmp_path / "local.parquet"))
    assert session.conf.get("spark.sql.caseSensitive") == "false"


def test_spark_udf_returns_typed_answers_for_bytes_and_paths(
    session: SparkSession, cluster: tuple[str, Path], photos: Path, tmp_path: Path
) -> None:
    """Calls `spark_udf` without a result type, as users of MLflow do.

    The executors are new, and must find the files that earlier jobs of the session have sent.
    """
    for executor in executors(cluster[1]):
        os.kill(executor, signal.SIGKILL)
    packaged = package.save(package.EMBEDDED, tmp_path / "model", {"local_paths": True, "mask_encoding": "rle"})
    files = sorted(photos.glob("0[1-5].png"))
    frame = pd.DataFrame({"image": [file.read_bytes() for file in files], "number": range(len(files))})
    frame["input_boxes"] = "[[10, 20, 90, 120]]"
    frame["multimask_output"] = False
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "bytes.parquet")
    model = mlflow.pyfunc.load_model(str(packaged))
    expected = model.predict(frame.drop(columns="number"))

    rows = session.read.parquet(str(tmp_path / "bytes.parquet"))
    segment = mlflow.pyfunc.spark_udf(session, str(packaged), env_manager="local")
    named = F.struct("image", "input_boxes", "multimask_output")
    answered = rows.withColumn("answer", segment(named))
    assert answered.schema["answer"].dataType.simpleString() == (
        "struct<predictions:array<struct<concept:string,concept_index:bigint,frame:bigint,"
        "mask_per_prediction:array<struct<area:bigint,bbox:array<double>,"
        "encoded_binary_mask:string,iou_score:double,low_res_logits:string,size:array<bigint>>>,object:bigint>>,"
        "image_id:string,error:string>"
    )
    collected = answered.orderBy("number").select("answer.*").collect()
    assert [row.image_id for row in collected] == list(expected["image_id"])
    for row, prediction in zip(collected, expected["predictions"], strict=True):
        (mask,) = row.predictions[0].mask_per_prediction
        (expected_mask,) = prediction[0]["mask_per_prediction"]
        assert pictures.tolerant({**mask.asDict(), "low_res_logits": None}) == pictures.tolerant(
            {**expected_mask, "low_res_logits": None}
        )

    paths = session.createDataFrame([(str(file), "[[10, 20, 90, 120]]") for file in files], ["image", "boxes"])
    collected = paths.select(segment(F.struct("image", F.col("boxes").alias("input_boxes"))).alias("answer")).collect()
    assert [row.answer.image_id for row in collected] == list(expected["image_id"])

    clip = write_video(tmp_path / "clip.webp", disc_frames(3)[0])
    prompts = '[{"frame": 0, "object": 4, "points": [[30, 48]]}]'
    for video in (clip.read_bytes(), str(clip)):
        videos = session.createDataFrame([(video, prompts)], ["video", "prompts"])
        answers = videos.select(segment(F.struct("video", "prompts")).alias("answer"))
        tracks = answers.select(F.explode("answer.predictions").alias("track")).select("track.*").collect()
        assert [(row.frame, row.object) for row in tracks] == [(0, 4), (1, 4), (2, 4)]
        assert all(len(row.mask_per_prediction) == 1 and row.mask_per_prediction[0].area > 500 for row in tracks)

    # A concept is typed too. A row with a text is an error that the row itself holds.
    record = mlflow.pyfunc.spark_udf(
        session, str(packaged), env_manager="local", params={"points_per_side": 8, "on_error": "record"}
    )
    cells = [(str(files[0]), "[[10, 20, 90, 120]]", None), (str(files[1]), None, "disc")]
    concepts = session.createDataFrame(cells, ["image", "input_exemplars", "input_text"])
    named = F.struct("image", "input_exemplars", "input_text")
    by_example, by_text = (row.answer for row in concepts.select(record(named).alias("answer")).collect())
    assert by_example.error is None
    assert {(entry.concept, entry.concept_index) for entry in by_example.predictions} <= {(None, 0)}
    assert by_text.predictions == [] and "--detector IDEA-Research/grounding-dino-tiny" in by_text.error
