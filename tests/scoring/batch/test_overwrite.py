"""What --overwrite continues, replaces, and never deletes, in outputs of `score` on this machine and on S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from sam_endpoint.model.errors import OutputConflict
from sam_endpoint.scoring.batch import spark
from sam_endpoint.scoring.batch.parts import Parts
from tests import pictures
from tests.scoring.batch.jobs import run, same_rows

BUCKET = "outputs"
PNG = ("--params", '{"mask_encoding": "png"}')


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """Run an S3 server with a bucket, and return its client."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        patch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    patch.undo()
    server.stop()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table of four images, of which the third is broken."""
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(pictures.disc(150 + i, 130)[0] if i != 2 else b"broken")
    names = [str(tmp_path / f"{i}.png") for i in range(4)]
    columns = {"input_boxes": "[66, 36, 140, 120]", "multimask_output": "false"}
    pd.DataFrame({"image": names, **columns}).to_csv(tmp_path / "in.csv", index=False)
    return tmp_path / "in.csv"


def read(output: str) -> list[dict[str, Any]]:
    """Return the rows of a finished output at a path or URL."""
    fs, path = fsspec.core.url_to_fs(output)
    files = [path] if path.endswith(".parquet") else sorted(fs.glob(f"{path}/part-*.parquet"))
    return [row for file in files for row in pq.read_table(fs.open(file)).to_pylist()]


def masks(rows: list[dict[str, Any]]) -> list[str | None]:
    """Return the start of the first mask of each row; None for a row with an error."""
    return [
        None if row["error"] else row["predictions"][0]["mask_per_prediction"][0]["encoded_binary_mask"][:4]
        for row in rows
    ]


@pytest.mark.parametrize("name", ["out", "out.parquet"])
@pytest.mark.parametrize("place", ["{folder}/", f"s3://{BUCKET}/", "memory://outputs/"])
def test_overwrite_continues_the_same_job_and_replaces_another(
    packaged: Path, table: Path, place: str, name: str, s3: Any, tmp_path: Path
) -> None:
    output = place.format(folder=tmp_path) + name
    command = ("--model", packaged, "--input", table, "--output", output, "--part-rows", 1)
    stopped = run(*command, "--overwrite", "--error-threshold", 0)
    assert stopped.returncode == 1 and "1 rows failed; the limit is 0" in stopped.stderr, stopped.stderr
    (tmp_path / "0.png").write_bytes(b"broken")  # its row fails if it is scored again
    done = run(*command, "--overwrite", "--error-threshold", 1)
    assert done.returncode == 0 and "rows         4 (1 failed)" in done.stdout, done.stderr
    rows = read(output)
    assert [row["error"] is None for row in rows] == [True, True, False, True]

    again = run(*command, "--overwrite")
    assert again.returncode == 0 and f"{output} is complete; there is nothing to do" in again.stdout
    assert read(output) == rows
    other = run(*command, *PNG)
    assert other.returncode == 2 and "or replace it with --overwrite" in other.stderr
    assert read(output) == rows
    replaced = run(*command, *PNG, "--overwrite")
    assert replaced.returncode == 0 and "rows         4 (2 failed)" in replaced.stdout, replaced.stderr
    assert masks(read(output)) == [None, "iVBO", None, "iVBO"]

    exported = run("export", "--predictions", output, "--format", "coco", "--output", tmp_path / "coco.json")
    assert exported.returncode == 0 and "objects      2 of 1 categories" in exported.stdout, exported.stderr
    fs, path = fsspec.core.url_to_fs(output)
    expected = [name] if "." in name else ["_SUCCESS", "job.json", *(f"part-00000{i}.parquet" for i in range(4))]
    assert sorted(file.rpartition("/")[2] for file in fs.find(path)) == expected


def test_an_empty_key_that_marks_a_folder_on_s3_is_no_file(packaged: Path, s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="marked/", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="images/", Body=b"")
    s3.put_object(Bucket=BUCKET, Key="images/a.png", Body=pictures.disc()[0])
    few = ("--params", json.dumps({"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}))
    for output in (f"s3://{BUCKET}/marked", tmp_path / "out"):
        done = run("--model", packaged, "--input", f"s3://{BUCKET}/images", "--output", output, *few)
        assert done.returncode == 0 and "not read" not in done.stderr, done.stderr
    rows = read(f"s3://{BUCKET}/marked")
    assert [row["image"] for row in rows] == [f"s3://{BUCKET}/images/a.png"]
    assert rows[0]["predictions"] and same_rows(rows, read(str(tmp_path / "out")))
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET, Prefix="marked/")["Contents"]]
    assert keys == ["marked/", "marked/_SUCCESS", "marked/job.json", "marked/part-000000.parquet"]


def test_an_output_on_an_object_store_is_not_a_pattern(table: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/pattern/a/part-000000.parquet", b"of another job")
    done = run("--input", table, "--output", "memory://pattern/*", "--overwrite")
    assert done.returncode == 2 and "without the characters *, ? and [ of a pattern" in done.stderr
    assert memory.cat("/pattern/a/part-000000.parquet") == b"of another job"


def write_user_table(folder: Path) -> None:
    """Write a table with the name of one of Spark's parts."""
    name = "part-00000-f54d6026-ae0f-467a-b1dd-91e9357e125a-c000.zstd.parquet"
    pq.write_table(pa.table({"sales": [1, 2]}), folder / name)


def write_note(name: str) -> Callable[[Path], None]:
    """Return a function that writes a file into a folder."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("precious")

    return write


NOTES = ["part-1/photo.txt", "_notes/n.txt", ".private", ".git/config", "_todo.md", "part-1.csv", "_temporary/n.txt"]


@pytest.mark.parametrize(
    ("write", "has_job"),
    [(write_user_table, False), *((write_note(name), has_job) for name in NOTES for has_job in (False, True))],
    ids=["table", *(f"{name}-{has_job}" for name in NOTES for has_job in (False, True))],
)
def test_overwrite_deletes_no_file_that_a_job_did_not_write(
    packaged: Path, table: Path, tmp_path: Path, write: Callable[[Path], None], has_job: bool
) -> None:
    for output, folder in (
        (tmp_path / "out", tmp_path / "out"),
        (tmp_path / "o.parquet", tmp_path / "o.parquet.parts"),
    ):
        folder.mkdir()
        if has_job:
            Parts(str(output), {"another": "job"})
        write(folder)
        before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        done = run("--model", packaged, "--input", table, "--output", output, "--overwrite")
        assert done.returncode == 2, done.stdout
        assert f"'{folder}' exists and is not the output of a job, because it holds '" in done.stderr
        with pytest.raises(OutputConflict, match="exists and is not the output of a job, because it holds"):
            spark.check_output(str(folder), overwrite=True)
        assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_overwrite_replaces_the_files_of_every_kind_of_job(packaged: Path, table: Path, tmp_path: Path) -> None:
    """The folder has the files of a stopped job, of a tracking job, and of a Spark job that died."""
    out = tmp_path / "out"
    parts = Parts(str(out), {"another": "job"})
    parts.put(0, pa.table({"x": [1]}), {})
    parts.put_piece(1, pa.table({"position": [0]}), {})
    attempt = out / "_temporary" / "0" / "_temporary" / "attempt_1"
    attempt.mkdir(parents=True)
    name = "part-00000-f54d6026-ae0f-467a-b1dd-91e9357e125a-c000.zstd.parquet"
    for file in (attempt / name, out / f".{name}.crc", out / ".state-000000.safetensors", out / "._SUCCESS.crc"):
        file.write_bytes(b"")
    spark.check_output(str(out), overwrite=True)
    done = run("--model", packaged, "--input", table, "--output", out, "--overwrite")
    assert done.returncode == 0 and "rows         4 (1 failed)" in done.stdout, done.stderr
    assert sorted(file.name for file in out.iterdir()) == ["_SUCCESS", "job.json", "part-000000.parquet"]


def test_a_finished_file_keeps_what_the_user_put_beside_its_parts(packaged: Path, table: Path, tmp_path: Path) -> None:
    command = ("--model", packaged, "--input", table, "--output", tmp_path / "out.parquet", "--part-rows", 1)
    assert run(*command, "--error-threshold", 0).returncode == 1
    (tmp_path / "out.parquet.parts" / "note.txt").write_text("precious")
    done = run(*command)
    assert done.returncode == 0 and "rows         4 (1 failed)" in done.stdout, done.stderr
    assert [file.name for file in (tmp_path / "out.parquet.parts").iterdir()] == ["note.txt"]


def test_a_part_of_a_tracking_job_is_kept_with_its_state(tmp_path: Path) -> None:
    output = str(tmp_path / "tracks.parquet")
    parts = Parts(output, {"video": "a"})
    parts.put(0, pa.table({"frame": [0]}), {"frames": 1})
    state = Path(parts.folder) / ".state-000000.safetensors"
    state.write_bytes(b"state")
    assert Parts(output, {"video": "a"}, overwrite=True).summary_of_part(0) == {"frames": 1} and state.exists()
    assert Parts(output, {"video": "b"}, overwrite=True).summary_of_part(0) is None and not state.exists()
