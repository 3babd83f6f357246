"""Repeated runs of `annotate`: which labels are kept, which are replaced, and which files are never deleted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from sam_endpoint.model.mlflow import package
from tests import pictures
from tests.detectors import yolos
from tests.scoring.batch.jobs import run
from tests.scoring.batch.label_files import coco_file

BBOX = [66, 36, 90, 90]
CONFLICT = "holds other files, or the labels of another job; choose another --output, or replace the labels"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write an image of a disc into a folder."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(pictures.disc()[0])
    return tmp_path / "photos"


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """Write a COCO file with the box of the disc in two images."""
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": BBOX} for i in range(2)]
    return coco_file(tmp_path / "boxes.json", ["a.png", "b.png"], annotations=annotations)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder by its relative path."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_model_that_was_packaged_again_does_not_continue_the_labels_of_the_old_one(
    packaged: Path, sam_folder: Path, photos: Path, boxes: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(packaged, model)
    command = ("annotate", "--data", photos, "--boxes", boxes, "--output", out)
    assert run(*command, "--model", model).returncode == 0
    before = contents(out)
    (photos / "b.png").write_bytes(pictures.disc(220, 180)[0])
    shutil.rmtree(model)
    package.save(sam_folder, model)
    done = run(*command, "--model", model)
    assert done.returncode == 2 and CONFLICT in done.stderr
    assert contents(out) == before

    moved = run(*command, "--model", packaged)  # the weights of the first run, at another place
    assert "images       2 (1 done before, 0 failed)" in moved.stdout, moved.stderr
    replaced = run(*command, "--model", model, "--overwrite")
    assert "images       2 (0 done before, 0 failed)" in replaced.stdout, replaced.stderr


def test_other_default_params_of_a_model_do_not_continue_its_labels(photos: Path, tmp_path: Path) -> None:
    command = ("annotate", "--model", tmp_path / "model", "--data", photos, "--output", tmp_path / "out")
    for points, message in ((4, "images       1 (0 done"), (4, "images       1 (1 done"), (5, CONFLICT)):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        package.save(package.EMBEDDED, tmp_path / "model", {"points_per_side": points})
        done = run(*command)
        assert message in done.stdout + done.stderr


def test_a_detector_that_was_trained_again_does_not_continue_its_labels(
    packaged: Path, photos: Path, tmp_path: Path
) -> None:
    command = ("annotate", "--model", packaged, "--data", photos, "--detector", tmp_path / "detector")
    for seed, message in ((0, "images       1 (0 done"), (0, "images       1 (1 done"), (1, CONFLICT)):
        torch.manual_seed(seed)
        yolos(tmp_path / "detector")
        done = run(*command, "--output", tmp_path / "out")
        assert message in done.stdout + done.stderr


def test_overwrite_continues_the_same_job(packaged: Path, photos: Path, boxes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("annotate", "--model", packaged, "--data", photos, "--boxes", boxes, "--output", out, "--overwrite")
    assert "images       1 (0 done before, 0 failed)" in run(*command).stdout
    stamp = (out / "objects" / "a.json").stat().st_mtime_ns
    (photos / "b.png").write_bytes(pictures.disc(220, 180)[0])
    done = run(*command)
    assert "images       2 (1 done before, 0 failed)" in done.stdout, done.stderr
    assert (out / "objects" / "a.json").stat().st_mtime_ns == stamp
    assert len(json.loads((out / "annotations.json").read_text())["annotations"]) == 2


@pytest.mark.parametrize("name", ["annotations.json", "data.yaml", "sheet.png", "job.json", "labels/a.txt"])
def test_overwrite_deletes_no_file_that_the_user_made(
    packaged: Path, photos: Path, boxes: Path, tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "mine"
    (mine / name).parent.mkdir(parents=True)
    (mine / name).write_text('{"made": "by hand"}')
    command = ("annotate", "--model", packaged, "--data", photos, "--boxes", boxes, "--output", mine)
    for more in ((), ("--overwrite",)):
        done = run(*command, *more)
        assert done.returncode == 2, done.stdout
    assert f"'{mine / name.split('/')[0]}' was not written by this command; choose another --output" in done.stderr
    assert contents(mine) == {name: b'{"made": "by hand"}'}


def test_overwrite_does_not_delete_its_own_boxes(packaged: Path, photos: Path, boxes: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    command = ("annotate", "--model", packaged, "--data", photos)
    assert run(*command, "--boxes", boxes, "--output", out).returncode == 0
    mine.mkdir()
    shutil.copy(boxes, mine / "annotations.json")
    for folder in (mine, out):  # a folder of the user, and one of an earlier job
        before = contents(folder)
        done = run(*command, "--boxes", folder / "annotations.json", "--output", folder, "--overwrite")
        assert done.returncode == 2
        assert f"--overwrite would delete '{folder}/annotations.json', an input; choose another" in done.stderr
        assert contents(folder) == before


def test_overwrite_keeps_other_files_beside_the_labels_of_another_job(
    packaged: Path, photos: Path, boxes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (photos / "more").mkdir()
    (photos / "more" / "c.d.png").write_bytes(pictures.disc()[0])
    command = ("annotate", "--model", packaged, "--data", photos, "--boxes", boxes, "--output", out)
    assert run(*command).returncode == 0
    for name in ("labels/notes.txt", "labels/more/c.txt", "masks/photo.jpg", "readme.md"):
        (out / name).write_text("mine")
    (photos / "more" / "c.d.png").unlink()
    done = run(*command, "--conf", "0.5", "--overwrite")
    assert "images       1 (0 done before, 0 failed)" in done.stdout, done.stderr
    left = contents(out)
    assert {name for name, content in left.items() if content == b"mine"} == {
        "labels/notes.txt",
        "labels/more/c.txt",
        "masks/photo.jpg",
        "readme.md",
    }
    assert {"labels/a.txt", "masks/a.png", "objects/a.json"} < left.keys()
    assert not [name for name in left if "c.d" in name]


@pytest.mark.parametrize("command", [("embed", "--images"), ("annotate", "--data"), ("score", "--input")])
def test_a_file_name_that_is_not_utf_8_is_one_line_of_error(
    packaged: Path, photos: Path, tmp_path: Path, command: tuple[str, str]
) -> None:
    shutil.copy(photos / "a.png", photos / os.fsdecode(b"caf\xe9.png"))
    output = "--store" if command[0] == "embed" else "--output"
    done = run(command[0], "--model", packaged, command[1], photos, output, tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert r"caf\udce9.png': the file name is not valid UTF-8; rename the file" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: '")
