"""Jobs that are killed and go on, inputs of every kind, outputs that are in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.model import masks
from sam_endpoint.scoring.batch import sources
from tests import pictures
from tests.conftest import ROOT
from tests.scoring.batch.test_batch import run
from tests.warm import python


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, one of them broken, in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i in range(12):
        file = folder / ("more" if i % 3 == 0 else "") / f"{i:02}.png"
        file.write_bytes(pictures.disc(150 + i, 130)[0] if i != 7 else b"broken")
    return folder


def table_of(photos: Path, rows: int) -> pd.DataFrame:
    """Shuffled rows over the pictures, numbered."""
    files = sorted(photos.rglob("*.png"))
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "image": [str(files[i]) for i in rng.integers(0, len(files), rows)],
            "input_boxes": [json.dumps([10, 20 + i % 50, 90, 120]) for i in range(rows)],
            "multimask_output": ["false"] * rows,
            "number": range(rows),
        }
    )


def rows_of(output: Path) -> list[dict[str, Any]]:
    """A finished output's rows: a file, or a folder of parts in order."""
    files = [output] if output.is_file() else sorted(output.glob("part-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return bool(pictures.tolerant(one) == pictures.tolerant(other))


def test_killed_at_any_moment_it_goes_on(packaged: Path, photos: Path, tmp_path: Path) -> None:
    table_of(photos, 160).to_csv(tmp_path / "in.csv", index=False)
    arguments = ["--model", str(packaged), "--input", str(tmp_path / "in.csv"), "--part-rows", "8"]
    undisturbed = run(*arguments, "--output", tmp_path / "undisturbed.parquet")
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    expected = rows_of(tmp_path / "undisturbed.parquet")
    assert [row["number"] for row in expected] == [str(i) for i in range(160)]

    output = tmp_path / "out.parquet"
    command = [python(), "-m", "sam_endpoint", "score", *arguments, "--output", str(output)]
    kills, parts = 0, tmp_path / "out.parquet.parts"
    for wanted in (1, 4, 9, 15):  # parts that are there when it is killed
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and len(list(parts.glob("part-*.parquet"))) < wanted:
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        assert not output.exists()
    assert kills == 4
    done = run(*arguments, "--output", output)
    assert done.returncode == 0, done.stderr[-3000:]
    assert same(rows_of(output), expected) and not parts.exists()
    failed = sum(row["error"] is not None for row in expected)
    assert failed and f"rows         160 ({failed} failed)" in done.stdout  # those of all runs together
    again = run(*arguments, "--output", output)
    assert again.returncode == 0 and "is complete; there is nothing to do" in again.stdout
    other = run(*arguments, "--output", output, "--params", '{"mask_encoding": "png"}')
    assert other.returncode == 2 and "exists and is not the output of this job" in other.stderr
    assert same(rows_of(output), expected)


def test_folders_of_images_answer_everything_in_each(packaged: Path, photos: Path, tmp_path: Path) -> None:
    params = json.dumps({"points_per_side": 5, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.6})
    output = tmp_path / "parts"
    done = run("--model", packaged, "--input", photos, "--output", output, "--params", params, "--part-rows", 5)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(output)
    assert [row["image"] for row in rows] == sorted(str(file) for file in photos.rglob("*.png"))
    assert (output / "_SUCCESS").exists() and len(list(output.glob("part-*.parquet"))) == 3
    broken = [row for row in rows if row["error"]]
    assert [Path(row["image"]).name for row in broken] == ["07.png"]
    disc = rows[-1]["predictions"]
    found = [one["mask_per_prediction"][0] for one in disc]
    true = pictures.disc(161, 130)[1]
    assert max(pictures.iou(masks.decode(one["encoded_binary_mask"], "rle", (130, 161)), true) for one in found) > 0.8


def test_every_form_of_a_table_gives_the_same(packaged: Path, photos: Path, tmp_path: Path) -> None:
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
    assert all(same(one, answers[0]) for one in answers[1:])


def test_tables_of_different_columns_become_one(packaged: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    row = {"image": str(photos / "01.png"), "input_boxes": "[10, 20, 90, 120]"}
    pd.DataFrame([{**row, "first": 1}]).to_csv(tmp_path / "in" / "a.csv", index=False)
    pd.DataFrame([{**row, "second": 2.5}]).to_parquet(tmp_path / "in" / "b.parquet")
    output = tmp_path / "out.parquet"
    done = run("--model", packaged, "--input", tmp_path / "in", "--output", output, "--part-rows", 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(row["first"], row["second"]) for row in rows_of(output)] == [("1", None), (None, 2.5)]


@pytest.mark.parametrize("encoding", ["rle", "png", "polygon"])
def test_show_draws_what_was_found(packaged: Path, photos: Path, tmp_path: Path, encoding: str) -> None:
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


READING = """
import os, sys
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
print(len(list(show.read_rows(sys.argv[1]))), len(next(sources.find(sys.argv[1]).tables())), len(threads() - before))
"""


def test_arrows_threads_hold_no_file_when_a_job_ends(tmp_path: Path) -> None:
    """One that lets go of a file while the interpreter ends aborts the process; reading starts none."""
    command = [python(), "-c", READING, str(tmp_path / "out.parquet")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout == "9 9 0\n"


def test_urls_of_other_file_systems() -> None:
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


def test_windows_are_of_one_size_whatever_the_tables_are(tmp_path: Path) -> None:
    for i, rows in enumerate((3, 0, 1500, 1)):
        pd.DataFrame({"image": [f"{i}-{j}" for j in range(rows)]}).to_csv(tmp_path / f"{i}.csv", index=False)
    windows = list(sources.find(str(tmp_path)).windows(400))
    assert [len(window) for window in windows] == [400, 400, 400, 304]
    assert [name for window in windows for name in window["image"].to_pylist()][2:5] == ["0-2", "2-0", "2-1"]


def test_too_many_failures_stop_the_job(packaged: Path, photos: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"image": [str(photos / "07.png")] * 9 + [str(photos / "01.png")] * 9})
    table.assign(input_boxes="[10, 20, 90, 120]").to_csv(tmp_path / "in.csv", index=False)
    arguments = ["--model", packaged, "--input", tmp_path / "in.csv", "--part-rows", 3]
    stopped = run(*arguments, "--output", tmp_path / "a", "--error-threshold", 5)
    assert stopped.returncode == 1 and "6 rows failed; the limit is 5 (--error-threshold)" in stopped.stderr
    assert len(list((tmp_path / "a").glob("part-*.parquet"))) == 2 and not (tmp_path / "a" / "_SUCCESS").exists()
    borne = run(*arguments, "--output", tmp_path / "b", "--error-threshold", 9)
    assert borne.returncode == 0 and "rows         18 (9 failed)" in borne.stdout
    assert "failed       column 'image': expected an image that Pillow can read" in borne.stdout


def test_what_is_in_the_way_stays(packaged: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "notes.parquet").write_text("not parquet")
    for output in ("thesis", "notes.parquet"):
        done = run("--model", packaged, "--input", photos, "--output", tmp_path / output)
        assert done.returncode == 2 and "exists and is not" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "notes.parquet").read_text() == "not parquet"


def test_a_disk_that_fills_loses_nothing(packaged: Path, photos: Path, tmp_path: Path) -> None:
    """A file system of its own, of a few megabytes, which fills while the job runs."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(mount)]).returncode:
        pytest.fail("this test mounts a small file system, for which it must be root")
    try:
        files = [str(file) for file in sorted(photos.rglob("*.png")) if file.name != "07.png"] * 12
        pd.DataFrame({"image": files, "input_boxes": "[10, 20, 90, 120]"}).to_csv(tmp_path / "in.csv", index=False)
        arguments = ["--model", packaged, "--input", tmp_path / "in.csv", "--part-rows", 10]
        arguments += ["--params", '{"return_logits": true}']
        full = run(*arguments, "--output", mount / "out")
        assert (
            full.returncode == 2
            and "No space left on device" in full.stderr
            and "run the same command again to continue" in full.stderr
        )
        there = len(list((mount / "out").glob("part-*.parquet")))
        assert 0 < there < 14
        subprocess.run(["mount", "-o", "remount,size=128m", str(mount)], check=True)
        done = run(*arguments, "--output", mount / "out")
        assert done.returncode == 0, done.stderr[-3000:]
        assert [row["image"] for row in rows_of(mount / "out")] == files
    finally:
        subprocess.run(["umount", str(mount)], check=True)
