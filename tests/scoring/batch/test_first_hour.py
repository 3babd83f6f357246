"""Files of new users: tables of spreadsheets and data sets, folders of photographs, and options with errors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.model.embeddings import EmbeddingCache, Store
from sam_endpoint.scoring.batch.answers import image_name
from sam_endpoint.scoring.runtime import open_model
from tests import pictures
from tests.scoring.batch.jobs import rows_of, run

BOX = '"[[68, 38, 153, 123]]"'
FEW = ["--params", json.dumps({"points_per_side": 4, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5})]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write an image of a disc, and return its folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "disc.png").write_bytes(pictures.disc()[0])
    return tmp_path / "in"


def mask_sizes(rows: list[dict[str, Any]]) -> set[tuple[int, ...]]:
    """Return the sizes of all masks in rows of predictions."""
    return {
        tuple(mask["size"])
        for row in rows
        for prediction in row["predictions"]
        for mask in prediction["mask_per_prediction"]
    }


def test_scores_a_spreadsheets_table_and_records_its_broken_lines(packaged: Path, folder: Path, tmp_path: Path) -> None:
    disc = folder / "disc.png"
    lines = ["\ufeffImage, Input-Boxes,shop", f"{disc},{BOX},a", f"{disc},b,{BOX},c", f"{disc}", f"{disc},{BOX},d"]
    (tmp_path / "in.csv").write_text("\r\n".join(lines) + "\r\n")
    done = run("--model", packaged, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.parquet")
    assert done.returncode == 0 and "rows         4 (2 failed)" in done.stdout
    assert "column 'shop' is not read; it stays in the output" in done.stderr
    assert "failed       expected 3 fields, as many as the header has, got 4" in done.stdout
    rows = rows_of(tmp_path / "out.parquet")
    assert [(row["shop"], len(row["predictions"])) for row in rows] == [("a", 1), (None, 0), (None, 0), ("d", 1)]
    assert [row["error"] for row in rows] == [
        None,
        "row 1 (line 3 of 'in.csv'), expected 3 fields, as many as the header has, got 4",
        "row 2 (line 4 of 'in.csv'), expected 3 fields, as many as the header has, got 1",
        None,
    ]
    assert list(rows[0]) == ["image", "input_boxes", "shop", "predictions", "image_id", "error"]


def test_rejects_a_misspelt_column_before_it_scores(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"image,input_box\n{folder}/disc.png,{BOX}\n")
    done = run("--input", tmp_path / "in.csv", "--output", tmp_path / "out")
    assert done.returncode == 2 and "'input_box'" in done.stderr and "'input_boxes'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_scores_a_data_set_of_structs_or_lists_of_bytes(packaged: Path, tmp_path: Path) -> None:
    content, mask = pictures.disc()
    structs = [
        {"bytes": content, "path": "train/1.png"},
        {"bytes": content, "path": None},
        {"bytes": b"no", "path": "x"},
    ]
    bytes_ = pa.array([list(content), [1, 2], None], pa.list_(pa.uint8()))
    boxes = pa.array([[[68, 38, 153, 123]]] * 3)
    for images, names in ((pa.array(structs), ["train/1.png", None, "x"]), (bytes_, [None] * 3)):
        pq.write_table(pa.table({"image": images, "input_boxes": boxes}), tmp_path / "in.parquet")
        arguments = ["--input", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet", "--overwrite"]
        done = run("--model", packaged, *arguments)
        assert done.returncode == 0, done.stderr
        rows = rows_of(tmp_path / "out.parquet")
        assert [row["image"] for row in rows] == names
        good = [len(row["predictions"]) for row in rows]
        assert good == ([1, 1, 0] if names[0] else [1, 0, 0])
        assert [row["error"] is None for row in rows] == [count == 1 for count in good]
        assert mask_sizes(rows) == {mask.shape}


@pytest.mark.parametrize("url_safe", [False, True])
def test_base64_text_is_not_the_name_of_an_image(url_safe: bool) -> None:
    text = pictures.to_text(pictures.to_bytes(Image.new("RGB", (96, 64))))
    text = text.replace("+", "-").replace("/", "_") if url_safe else text
    assert len(text) < 200
    for content in (text, text.rstrip("="), f" {text[:40]}\n{text[40:]}\n", f"data:image/png;base64,{text}", "DATA:,x"):
        assert image_name(content) is None and image_name({"bytes": b"", "path": content}) is None
    for name in ("a.png", "photos/missing", "https://example.com/a?b=c", "s3://bucket/a", "photosofmycatsanddogs2024"):
        assert image_name(name) == image_name({"bytes": None, "path": name}) == name
    assert image_name(b"bytes") is None and image_name(None) is None and image_name({"bytes": b""}) is None


def test_a_repeated_command_does_not_read_its_own_output(packaged: Path, folder: Path) -> None:
    arguments = ["--model", packaged, "--input", folder, *FEW, "--overlay", folder / "overlay.png"]
    for output in (folder / "parts", folder / "out.parquet"):
        runs = [run(*arguments, "--output", output) for _ in range(3)]
        assert [done.returncode for done in runs] == [0, 0, 0], runs[-1].stderr
        assert ["nothing to do" in done.stdout for done in runs] == [False, True, True]
        assert all("images       1\n" in done.stdout for done in runs)
    assert sorted(path.name for path in folder.iterdir()) == ["disc.png", "out.parquet", "overlay.png", "parts"]


def test_images_of_a_folder_are_upright_and_those_of_a_table_as_stored(packaged: Path, tmp_path: Path) -> None:
    photo = Image.open(io.BytesIO(pictures.disc()[0]))  # 240 x 160
    exif = photo.getexif()
    exif[274] = 6  # the orientation: viewers rotate the image by 90 degrees
    (tmp_path / "in").mkdir()
    photo.save(tmp_path / "in" / "photo.jpg", exif=exif)
    (tmp_path / "in.csv").write_text(f"image,input_boxes\n{tmp_path}/in/photo.jpg,{BOX}\n")
    stored = ["--params", json.dumps({**json.loads(FEW[1]), "orientation": "stored"})]
    drawn = []
    for place, params, size in (("in", FEW, (240, 160)), ("in", stored, (160, 240)), ("in.csv", FEW, (160, 240))):
        output = tmp_path / "out.parquet"
        arguments = ["--input", tmp_path / place, "--output", output, *params, "--overwrite"]
        done = run("--model", packaged, *arguments, "--overlay", tmp_path / "overlay.png")
        assert done.returncode == 0 and "not drawn" not in done.stdout, done.stdout + done.stderr
        assert mask_sizes(rows_of(output)) == {size}
        drawn.append(Image.open(tmp_path / "overlay.png").size)
        bare = pq.read_table(output).replace_schema_metadata(None)  # Spark writes no metadata of the schema
        pq.write_table(bare, tmp_path / "bare.parquet")
        done = run("show", "--predictions", tmp_path / "bare.parquet", "--output", tmp_path / "shown.png")
        assert done.returncode == 0, done.stderr
        shown, overlay = (np.asarray(Image.open(tmp_path / name)) for name in ("shown.png", "overlay.png"))
        assert np.array_equal(shown, overlay)
    assert drawn == [(176, 256), (256, 176), (256, 176)]  # including a margin of 8 pixels


def test_reports_files_that_are_not_read(packaged: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("a.docx", "b.txt", "c.heic", ".DS_Store"):
        (folder / name).write_bytes(b"")
    done = run("--model", packaged, "--input", folder, "--output", tmp_path / "out", *FEW)
    assert done.returncode == 0 and "3 other files were not read, such as 'a.docx'" in done.stderr
    store = tmp_path / "store"
    done = run("embed", "--model", packaged, "--images", folder, "--store", store)
    assert done.returncode == 0 and "3 other files were not read, such as 'a.docx'" in done.stderr
    assert "images       1 (0 failed)" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "{0}/x.csv"], "the output format is Parquet; choose '{0}/x.parquet' or a folder"),
        (["--output", "{0}/file"], "'{0}/file' exists and is not the output of a job"),
        (["--output", "{0}/file/x"], "'{0}/file/x' cannot be written: Not a directory"),
        (["--output", "/proc/x"], "'/proc/x' cannot be written"),
        (["--output", ""], "the output path is empty"),
        (["--output", "nowhere://x"], "Protocol not known: nowhere"),
        (["--output", "{0}/thesis", "--overwrite"], "'{0}/thesis' exists and is not the output of a job"),
        (["--output", "{0}", "--overwrite"], "the input is inside the output '{0}'"),
        (["--output", "{0}/broken"], "'{0}/broken' holds the output of another job"),
        (["--summary", "{0}/thesis"], "--summary '{0}/thesis': expected a file, got an existing folder"),
        (["--summary", "{0}/file/x.json"], "--summary '{0}/file/x.json': cannot create its folder"),
        (["--overlay", "{0}/x.docx"], "--overlay '{0}/x.docx': expected a file name that ends in .png"),
        (["--part-rows", "0"], "argument --part-rows: expected a whole number of at least 1, got '0'"),
        (["--part-rows", "-3"], "argument --part-rows: expected a whole number of at least 1, got '-3'"),
        (["--params", "[" * 10_000], "argument --params: expected a JSON object"),
        (["--params", '{"points_per_side": "4"}'], "parameter 'points_per_side': expected a whole number"),
        (["--params", '{"pred_iou_thresh": NaN}'], "parameter 'pred_iou_thresh': expected a number"),
        (["--input", ""], "the input path is empty"),
    ],
)
def test_rejects_options_that_cannot_work_with_one_line_of_error(
    packaged: Path, folder: Path, options: list[str], message: str
) -> None:
    (folder / "file").write_text("a file")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("years of work")
    (folder / "broken").mkdir()
    (folder / "broken" / "job.json").write_text("{no json")
    arguments = [option.replace("{0}", str(folder)) for option in options]
    done = run("--model", packaged, "--input", folder, "--output", folder.parent / "out", *FEW, *arguments)
    assert done.returncode == 2 and message.replace("{0}", str(folder)) in done.stderr, done.stderr
    assert "error: " in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert "scoring" not in done.stdout and not list((folder.parent / "out").glob("part-*"))
    assert (folder / "disc.png").exists() and (folder / "thesis" / "chapter.txt").exists()


def test_scores_broken_parts_again(packaged: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["--model", packaged, "--input", folder, "--output", tmp_path / "out", *FEW]
    assert run(*arguments).returncode == 0
    expected = rows_of(tmp_path / "out")
    (tmp_path / "out" / "_SUCCESS").write_text("{no json")
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"PAR1")
    done = run(*arguments)
    assert done.returncode == 0 and rows_of(tmp_path / "out") == expected


def test_embed_fails_if_its_store_cannot_be_written(packaged: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store, message in (
        (tmp_path / "file", "cannot read or write the embedding store"),
        ("nowhere://x", "Protocol not known"),
    ):
        done = run("embed", "--model", packaged, "--images", folder, "--store", store)
        assert done.returncode == 2 and message in done.stderr and "written" not in done.stdout


def test_embed_stores_all_embeddings_and_seals_them_with_the_key(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{i:02}.png" for i in range(40)]  # more than the queue of the store can hold
    (tmp_path / "in").mkdir()
    for i, name in enumerate(names):
        (tmp_path / "in" / name).write_bytes(pictures.disc(60 + i, 50)[0])
    monkeypatch.setenv("SAM_EMBEDDING_STORE_KEY", "sealed")
    done = run("embed", "--model", packaged, "--images", tmp_path / "in", "--store", tmp_path / "store")
    assert done.returncode == 0 and "images       40 (0 failed)" in done.stdout, done.stderr
    fingerprint = open_model(packaged).engine.segmenter.family.encoder_fingerprint()
    for secret, sizes in ((b"sealed", [(50, 60 + i) for i in range(40)]), (b"", [None] * 40)):
        cache = EmbeddingCache(1, Store(str(tmp_path / "store"), secret=secret)).for_model(fingerprint)
        stored = [cache.find(name) for name in names]
        assert [None if embedding is None else embedding.size for embedding in stored] == sizes


@pytest.mark.parametrize("content", ["text", "plain", "garbage", "none"])
def test_show_rejects_files_that_it_cannot_show(tmp_path: Path, content: str) -> None:
    file = tmp_path / "in.parquet"
    if content == "text":
        file.write_text("no parquet")
    elif content != "none":
        answers = {"predictions": ["x"], "error": pa.nulls(1, pa.string())} if content == "garbage" else {}
        pq.write_table(pa.table({"image": ["a.png"], **answers}), file)
    done = run("show", "--predictions", file, "--output", tmp_path / "x.png")
    assert done.returncode == 2 and f"error: {file} cannot be shown: " in done.stderr
    wrong = run("show", "--predictions", file, "--output", tmp_path)
    assert wrong.returncode == 2 and "expected a file name that ends in .png" in wrong.stderr
