"""Batch jobs: jobs that are killed and continue, inputs of every kind, and outputs that must not be overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sam_endpoint.model import masks
from sam_endpoint.scoring.batch import sources
from tests import pictures
from tests.conftest import ROOT
from tests.scoring.batch.jobs import rows_of, run, same_rows, table_of
from tests.warm import python


def test_a_job_that_is_killed_repeatedly_continues_and_writes_the_same(
    packaged: Path, photos: Path, tmp_path: Path
) -> None:
    table_of(photos, 160).to_csv(tmp_path / "in.csv", index=False)
    arguments = ["--model", str(packaged), "--input", str(tmp_path / "in.csv"), "--part-rows", "8"]
    undisturbed = run(*arguments, "--output", tmp_path / "undisturbed.parquet")
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    expected = rows_of(tmp_path / "undisturbed.parquet")
    assert [row["number"] for row in expected] == [str(i) for i in range(160)]

    output = tmp_path / "out.parquet"
    command = [python(), "-m", "sam_endpoint", "score", *arguments, "--output", str(output)]
    kills, parts = 0, tmp_path / "out.parquet.parts"
    for part_count in (1, 4, 9, 15):  # number of finished parts at which the job is killed
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and len(list(parts.glob("part-*.parquet"))) < part_count:
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        assert not output.exists()
    assert kills == 4
    done = run(*arguments, "--output", output)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same_rows(rows_of(output), expected) and not parts.exists()
    failed = sum(row["error"] is not None for row in expected)
    assert failed and f"rows         160 ({failed} failed)" in done.stdout  # the sum of all runs
    done = run(*arguments, "--output", output)
    assert done.returncode == 0 and "is complete; there is nothing to do" in done.stdout
    done = run(*arguments, "--output", output, "--params", '{"mask_encoding": "png"}')
    assert done.returncode == 2 and "exists and is not the output of this job" in done.stderr
    assert same_rows(rows_of(output), expected)


def test_segments_everything_in_each_image_of_a_folder(packaged: Path, photos: Path, tmp_path: Path) -> None:
    params = json.dumps({"points_per_side": 5, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6})
    output = tmp_path / "parts"
    done = run("--model", packaged, "--input", photos, "--output", output, "--params", params, "--part-rows", 5)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(output)
    assert [row["image"] for row in rows] == sorted(str(file) for file in photos.rglob("*.png"))
    assert (output / "_SUCCESS").exists() and len(list(output.glob("part-*.parquet"))) == 3
    broken = [row for row in rows if row["error"]]
    assert [Path(row["image"]).name for row in broken] == ["07.png"]
    predictions = rows[-1]["predictions"]
    objects = [item["mask_per_prediction"][0] for item in predictions]
    true = pictures.disc(161, 130)[1]
    assert (
        max(pictures.iou(masks.decode(item["encoded_binary_mask"], "rle", (130, 161)), true) for item in objects) > 0.8
    )


def test_every_form_of_a_table_has_the_same_results(packaged: Path, photos: Path, tmp_path: Path) -> None:
    table = table_of(photos, 12)
    (tmp_path / "csvs").mkdir()
    table[:5].to_csv(tmp_path / "csvs" / "a.csv", index=False)
    table[5:].to_csv(tmp_path / "csvs" / "b.csv", index=False)
    table.to_parquet(tmp_path / "in.parquet")
    records = table.assign(input_boxes=table["input_boxes"].map(json.loads), multimask_output=False).to_dict("records")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    answers = []
    for name in ("csvs", "in.parquet", "in.jsonl", "csvs/*.csv"):
        output, summary = tmp_path / "out.parquet", tmp_path / "summary.json"
        arguments = ["--input", tmp_path / name, "--output", output, "--overwrite", "--summary", summary]
        done = run("--model", packaged, *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = rows_of(output)
        assert [int(row["number"]) for row in rows] == list(range(12))
        assert json.loads(summary.read_text())["rows"] == 12
        answers.append([row["predictions"] for row in rows])
    assert all(same_rows(rows_of_form, answers[0]) for rows_of_form in answers[1:])


def test_merges_tables_with_different_columns(packaged: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    row = {"image": str(photos / "01.png"), "input_boxes": "[10, 20, 90, 120]"}
    pd.DataFrame([{**row, "first": 1}]).to_csv(tmp_path / "in" / "a.csv", index=False)
    pd.DataFrame([{**row, "second": 2.5}]).to_parquet(tmp_path / "in" / "b.parquet")
    output = tmp_path / "out.parquet"
    done = run("--model", packaged, "--input", tmp_path / "in", "--output", output, "--part-rows", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(row["first"], row["second"]) for row in rows_of(output)] == [("1", None), (None, 2.5)]


@pytest.mark.parametrize("encoding", ["rle", "png", "polygon"])
def test_show_draws_masks_in_every_encoding(packaged: Path, photos: Path, tmp_path: Path, encoding: str) -> None:
    row = {"image": str(photos / "01.png"), "input_boxes": "[68, 38, 153, 123]", "multimask_output": "false"}
    pd.DataFrame([row]).to_csv(tmp_path / "in.csv", index=False)
    output, drawn = tmp_path / "parts", tmp_path / "sheet.png"
    params = json.dumps({"mask_encoding": encoding})
    done = run("--model", packaged, "--input", tmp_path / "in.csv", "--output", output, "--params", params)
    assert done.returncode == 0, done.stderr[-3000:]
    done = run("show", "--predictions", output, "--output", drawn)
    assert done.returncode == 0, done.stderr[-3000:]
    picture = np.asarray(Image.open(drawn).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(photos / "01.png").convert("RGB")).astype(int)
    top, left = ((np.array(picture.shape) - plain.shape) // 2)[:2]
    inside = np.abs(picture[top : top + 130, left : left + 151] - plain).sum(2) > 10
    assert pictures.iou(inside, pictures.disc(151, 130)[1]) > 0.6
    wrong = run("show", "--predictions", tmp_path / "none.parquet", "--output", drawn)
    assert wrong.returncode == 2 and "cannot be shown" in wrong.stderr and "Traceback" not in wrong.stderr


READ_FILES = """
import os, sys, time
import pyarrow as pa
from sam_endpoint.scoring.batch import show, sources
from sam_endpoint.scoring.batch.parts import Parts

def threads():
    names = {number: open(f"/proc/self/task/{number}/comm").read() for number in os.listdir("/proc/self/task")}
    return {number for number, name in names.items() if "jemalloc" not in name}

before = threads()
parts = Parts(sys.argv[1], {})
parts.put(0, pa.table({name: [name] * 9 for name in ("image", "b", "c")}), {})
parts.finish(1, {})
read = len(list(show.read_rows(sys.argv[1]))), len(next(sources.find(sys.argv[1]).tables()))
time.sleep(0.2)  # until a thread of the allocator, if it has just begun, has its name
print(*read, len(threads() - before))
"""


def test_reading_and_writing_start_no_thread_of_arrow(tmp_path: Path) -> None:
    """A thread that releases a file while the interpreter shuts down would abort the process."""
    command = [python(), "-c", READ_FILES, str(tmp_path / "out.parquet")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "9 9 0\n"


def test_reads_tables_and_images_from_other_file_systems() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/tables/a.csv", b'image,note\nx.png,"two\nlines"\ny.png,\n')
    memory.pipe("/tables/b.jsonl", b'{"image": "z.png", "input_boxes": [1, 2, 3, 4]}\n')
    memory.pipe("/pictures/one.jpg", b"1")
    source = sources.find("memory://tables")
    windows = [window.to_pylist() for window in source.windows(2)]
    assert windows == [
        [{"image": "x.png", "note": "two\nlines"}, {"image": "y.png", "note": ""}],
        [{"image": "z.png", "note": None, "input_boxes": "[1, 2, 3, 4]"}],
    ]
    assert next(sources.find("memory://pictures").windows(9)).to_pylist() == [{"image": "memory:///pictures/one.jpg"}]


def test_windows_have_the_same_size_for_tables_of_any_size(tmp_path: Path) -> None:
    for i, rows in enumerate((3, 0, 1500, 1)):
        pd.DataFrame({"image": [f"{i}-{j}" for j in range(rows)]}).to_csv(tmp_path / f"{i}.csv", index=False)
    windows = list(sources.find(str(tmp_path)).windows(400))
    assert [len(window) for window in windows] == [400, 400, 400, 304]
    assert [name for window in windows for name in window["image"].to_pylist()][2:5] == ["0-2", "2-0", "2-1"]


def test_a_job_stops_when_more_rows_fail_than_the_limit(packaged: Path, photos: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"image": [str(photos / "07.png")] * 9 + [str(photos / "01.png")] * 9})
    table.assign(input_boxes="[10, 20, 90, 120]").to_csv(tmp_path / "in.csv", index=False)
    arguments = ["--model", packaged, "--input", tmp_path / "in.csv", "--part-rows", 3]
    stopped = run(*arguments, "--output", tmp_path / "a", "--error-threshold", 5)
    assert stopped.returncode == 1 and "6 rows failed; the limit is 5 (--error-threshold)" in stopped.stderr
    assert len(list((tmp_path / "a").glob("part-*.parquet"))) == 2 and not (tmp_path / "a" / "_SUCCESS").exists()
    finished = run(*arguments, "--output", tmp_path / "b", "--error-threshold", 9)
    assert finished.returncode == 0 and "rows         18 (9 failed)" in finished.stdout
    assert "failed       column 'image': expected an image that Pillow can read" in finished.stdout


def test_does_not_overwrite_other_files_and_folders(packaged: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "notes.parquet").write_text("not parquet")
    for output in ("thesis", "notes.parquet"):
        done = run("--model", packaged, "--input", photos, "--output", tmp_path / output)
        assert done.returncode == 2 and "exists and is not" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "notes.parquet").read_text() == "not parquet"


def test_a_job_continues_after_a_full_disk(packaged: Path, photos: Path, tmp_path: Path) -> None:
    """The output is on a file system of a few megabytes, which fills up while the job runs."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(mount)]).returncode:
        pytest.fail("this test mounts a small file system, for which it must be root")
    try:
        files = [str(file) for file in sorted(photos.rglob("*.png")) if file.name != "07.png"] * 12
        pd.DataFrame({"image": files, "input_boxes": "[10, 20, 90, 120]"}).to_csv(tmp_path / "in.csv", index=False)
        arguments = ["--model", packaged, "--input", tmp_path / "in.csv", "--part-rows", 10]
        arguments += ["--params", '{"return_logits": true}']
        stopped = run(*arguments, "--output", mount / "out")
        assert (
            stopped.returncode == 2
            and "No space left on device" in stopped.stderr
            and "run the same command again to continue" in stopped.stderr
        )
        part_count = len(list((mount / "out").glob("part-*.parquet")))
        assert 0 < part_count < 14
        subprocess.run(["mount", "-o", "remount,size=128m", str(mount)], check=True)
        done = run(*arguments, "--output", mount / "out")
        assert done.returncode == 0, done.stderr[-3000:]
        assert [row["image"] for row in rows_of(mount / "out")] == files
    finally:
        # Lazily, because another program may look into the folder at this moment, such as one that indexes files.
        subprocess.run(["umount", "-l", str(mount)], check=True)
