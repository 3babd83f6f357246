"""`sam-endpoint export`: images and rows, names of label files, categories, and files that cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData, OutputConflict
from sam_endpoint.scoring.batch import boxes, export, labels
from sam_endpoint.scoring.batch.labels import LabelledImage
from tests import pictures
from tests.scoring.batch.jobs import run

SIZE = (64, 96)


def block(x: int = 30) -> np.ndarray:
    """Return a mask of a rectangle."""
    mask = np.zeros(SIZE, bool)
    mask[14:50, x : x + 36] = True
    return mask


def answer(mask: np.ndarray, encoding: str = "rle", score: float = 0.9) -> dict[str, Any]:
    """Return the answer for a mask."""
    return {**masks.encode(mask, encoding), "iou_score": score}


def row(image: str | None, *answers: dict[str, Any], error: str | None = None, **columns: Any) -> dict[str, Any]:
    """Return a row of predictions, with one prediction per answer and additional columns."""
    return {
        "image": image,
        "predictions": [{"mask_per_prediction": [item]} for item in answers],
        "error": error,
        **columns,
    }


def save(file: Path, *rows: dict[str, Any]) -> Path:
    """Write rows as a Parquet file, and return the file."""
    columns = {name: [item[name] for item in rows] for name in rows[0]}
    pq.write_table(pa.table(columns), file)
    return file


def export_file(predictions: Path, kind: str, output: Path, *arguments: object) -> str:
    """Export predictions, and return the standard output of the command."""
    done = run("export", "--predictions", predictions, "--format", kind, "--output", output, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exports_images_without_objects_and_reports_rows_that_it_leaves_out(tmp_path: Path) -> None:
    """The rows have an object, an empty mask, an image without objects, a missing image, two errors, and no path."""
    nothing = tmp_path / "photos" / "nothing.png"
    nothing.parent.mkdir()
    nothing.write_bytes(pictures.disc(80, 50)[0])
    folder = str(nothing.parent)
    predictions = save(
        tmp_path / "p.parquet",
        row(f"{folder}/a.png", answer(block())),
        row(f"{folder}/empty.png", answer(np.zeros(SIZE, bool))),
        row(f"{folder}/nothing.png"),
        row(f"{folder}/gone.png"),
        row(f"{folder}/bad.png", error="row 4: it is no image"),
        row(f"{folder}/a.png", error="row 5: the box is empty"),
        row(None, answer(block())),
    )
    output = export_file(predictions, "coco", tmp_path / "c.json")
    assert "images       4" in output and "objects      1" in output
    assert "2 rows with errors were left out" in output
    assert "1 row without the path or URL of an image was left out" in output
    assert f"images without a size: 1, for example '{folder}/gone.png'" in output
    images = json.loads((tmp_path / "c.json").read_text())["images"]
    assert [(Path(item["file_name"]).name, item.get("width"), item.get("height")) for item in images] == [
        ("a.png", 96, 64),
        ("empty.png", 96, 64),
        ("nothing.png", 80, 50),
        ("gone.png", None, None),
    ]
    export_file(predictions, "yolo", tmp_path / "yolo")
    texts = {file.name: file.read_text().count("\n") for file in (tmp_path / "yolo").glob("*.txt")}
    assert texts == {"a.txt": 1, "empty.txt": 0, "nothing.txt": 0, "gone.txt": 0, "classes.txt": 1}
    export_file(predictions, "label-studio", tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [len(task["predictions"][0]["result"]) for task in tasks] == [1, 0, 0, 0]


def test_reads_masks_in_every_encoding(tmp_path: Path) -> None:
    for encoding in masks.ENCODINGS:
        rows = [row("a.png", answer(block(), encoding)), row("b.png", answer(np.zeros(SIZE, bool), encoding))]
        first, second = export.read(str(save(tmp_path / "p.parquet", *rows))).images
        assert np.array_equal(first.mask(first.objects[0]), block()) and not second.objects


def labelled(*names: str) -> list[LabelledImage]:
    """Return images with one object each."""
    thing = labels.LabelledObject.from_prediction(0, answer(block()))
    return [LabelledImage(name, SIZE, [thing]) for name in names]


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a/001.jpg", "b/001.jpg"], ["a/001.txt", "b/001.txt"]),
        (["/data/x/a/001.jpg", "/data/x/b/001.jpg", "/data/x/2.PNG"], ["2.txt", "a/001.txt", "b/001.txt"]),
        (["https://host/a/1.jpg?key=1", "https://host/b/1.jpg?key=2"], ["a/1.txt", "b/1.txt"]),
        (["https://one/1.jpg", "/data/1.jpg", r"C:\data\1.jpg"], ["C:/data/1.txt", "data/1.txt", "one/1.txt"]),
        (["frame.0001", "frame.0002"], ["frame.0001.txt", "frame.0002.txt"]),
        (["photo.v2.jpeg"], ["photo.v2.txt"]),
        (["../../x/a.jpg", "../b.jpg"], ["b.txt", "x/a.txt"]),
        (["x/../../../a.jpg", "/../b.jpg"], ["b.txt", "x/a.txt"]),
    ],
)
def test_yolo_files_are_in_the_folders_of_their_images(names: list[str], files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    export.write(labelled(*names), {0: "block"}, "yolo", out)
    written = sorted(file.relative_to(out).as_posix() for file in out.rglob("*.txt") if file.name != "classes.txt")
    assert written == files
    assert [path for path in tmp_path.rglob("*") if path.is_file() and out not in path.parents] == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["s.jpg", "s.png"], "s.jpg and s.png would have the same label file"),
        (["https://host/a.jpg?v=1", "https://host/a.jpg?v=2"], r"a.jpg\?v=1 and https://host/a.jpg\?v=2 would have"),
        (["../a.jpg", "a.jpg"], r"\.\./a.jpg and a.jpg would have the same label file"),
        (["classes.jpg"], "classes.jpg would have the label file classes.txt, which lists classes"),
        ([".."], r"'\.\.' is not the path or URL of a file"),
        (["a\0b.jpg"], "is not the path or URL of a file"),
    ],
)
def test_rejects_images_that_would_share_a_yolo_file(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=message):
        export.write(labelled(*names), {0: "block"}, "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_yolo_export_can_be_read_as_boxes(tmp_path: Path) -> None:
    rows = [row("x/a.jpg", answer(block()), what="cup"), row("y/a.jpg", answer(block(10)), what="spoon")]
    predictions = save(tmp_path / "p.parquet", *rows)
    for _ in range(2):  # the second export replaces the first
        export_file(predictions, "yolo", tmp_path / "yolo", "--category", "what")
    labels_read = boxes.read(tmp_path / "yolo")
    assert labels_read.names == {0: "cup", 1: "spoon"}
    matched = labels_read.match({"x/a.jpg": tmp_path / "x/a.jpg", "y/a.jpg": tmp_path / "y/a.jpg"}, tmp_path)
    for name, category, x in (("x/a.jpg", 0, 30), ("y/a.jpg", 1, 10)):
        (detection,) = matched.of(name, SIZE).detections
        assert detection.category == category
        assert detection.box.tolist() == pytest.approx([x, 14, x + 36, 50], abs=1e-3)
    with pytest.raises(OutputConflict, match=r"x/a.txt' is not a label file of these images"):
        export.write(labelled("b.jpg"), {0: "block"}, "yolo", tmp_path / "yolo")
    assert not (tmp_path / "yolo" / "b.txt").exists()


def test_rows_without_a_category_have_the_category_object(tmp_path: Path) -> None:
    cells = ["cup", None, " ", "spoon"]
    predictions = save(
        tmp_path / "p.parquet", *(row("a.jpg", answer(block(i)), what=cell) for i, cell in enumerate(cells))
    )
    output = export_file(predictions, "coco", tmp_path / "c.json", "--category", "what")
    assert "2 rows without a category count as 'object'" in output
    coco = json.loads((tmp_path / "c.json").read_text())
    names = {item["id"]: item["name"] for item in coco["categories"]}
    assert [names[item["category_id"]] for item in coco["annotations"]] == ["cup", "object", "object", "spoon"]
    numbers = save(tmp_path / "n.parquet", *(row("a.jpg", answer(block()), what=cell) for cell in (1.5, float("nan"))))
    assert export.read(str(numbers), "what").names == {0: "1.5", 1: "object"}


def bad_predictions(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write files that cannot be exported. Return the path and the expected message of each file, by name."""
    good = answer(block())
    files = {
        "list category": (save(folder / "l.parquet", row("a", good, what=["x"])), "the name of a category"),
        "no predictions": (save(folder / "p.parquet", {"image": "a", "error": None}), "without a column 'predictions'"),
        "no error": (save(folder / "e.parquet", {"image": "a", "predictions": []}), "without a column 'error'"),
        "text": (save(folder / "t.parquet", {"image": "a", "predictions": "[]", "error": None}), "row 0: expected"),
        "all failed": (save(folder / "f.parquet", row("a", good, error="e")), "1 row with errors was left out"),
        "two sizes": (
            save(folder / "s.parquet", row("a", good), row("a", answer(block()[:60]))),
            "row 1: the masks of 'a' have another size",
        ),
    }
    for name, text in {
        "runs of other text": "hello world",
        "runs of another size": "5",
        "polygon of nan": "[[NaN, 1, 2, 3, 4, 5]]",
        "polygon of two points": "[[1, 2, 3, 4]]",
        "deep polygon": "[" * 100_000 + ",",
        "png cut off": "iVBORw0KGgo",
    }.items():
        broken = save(folder / f"{name}.parquet", row("a", {**good, "encoded_binary_mask": text}))
        files[name] = (broken, "row 0: expected predictions from `score`")
    for name, content in {"csv": b"image,error\na,b\n", "cut": b"PAR1", "empty": b""}.items():
        (folder / f"{name}.parquet").write_bytes(content)
        files[name] = (folder / f"{name}.parquet", "cannot be exported")
    (folder / "none").mkdir()
    files["empty folder"] = (folder / "none", "expected scored images with a path or URL, got none")
    files["missing"] = (folder / "missing.parquet", "No such file")
    files["unknown scheme"] = (Path("nowhere://x"), "cannot be exported")
    return files


def test_rejects_predictions_that_cannot_be_exported(tmp_path: Path) -> None:
    for name, (file, message) in bad_predictions(tmp_path).items():
        category = ["--category", "what"] if name == "list category" else []
        done = run("export", "--predictions", file, "--format", "coco", "--output", tmp_path / "c.json", *category)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr, (
            name,
            done.stderr,
        )
        assert not (tmp_path / "c.json").exists()


def test_rejects_outputs_of_the_wrong_kind(tmp_path: Path) -> None:
    predictions = save(tmp_path / "p.parquet", row("a.jpg", answer(block()), what="a\nb"))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("mine")
    for kind, output, message in (
        ("coco", "folder.json", "is a folder; the output of coco is a .json file"),
        ("label-studio", "folder.json", "is a folder; the output of label-studio is a .json file"),
        ("coco", "file/c.json", "File exists"),
        ("yolo", "file", "is a file; the output of yolo is a folder"),
        ("yolo", "yolo", "contains a line break, which classes.txt does not allow"),
    ):
        done = run(
            *("export", "--predictions", predictions, "--format", kind, "--output", tmp_path / output),
            *("--category", "what"),
        )
        assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr, done.stderr
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "yolo").exists()


def test_reports_images_that_other_tools_show_rotated(tmp_path: Path) -> None:
    """The masks fit the stored pixels, except if the job has the param `orientation: upright`."""
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (96, 64)).save(tmp_path / f"{orientation}.jpg", exif=exif.tobytes())
    predictions = save(tmp_path / "p.parquet", *(row(str(tmp_path / f"{i}.jpg"), answer(block())) for i in (1, 6)))
    output = export_file(predictions, "yolo", tmp_path / "stored")
    assert f"images with an EXIF orientation: 1, for example '{tmp_path}/6.jpg'" in output
    table = pq.read_table(predictions)
    job = json.dumps({"job": {"params": {"orientation": "upright"}}}).encode()
    pq.write_table(table.replace_schema_metadata({b"scoring.batch": job}), predictions)
    assert "EXIF" not in export_file(predictions, "yolo", tmp_path / "upright")


def test_reports_a_job_that_has_not_ended(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    save(folder / "part-000000.parquet", row("a.jpg", answer(block())))
    (folder / "job.json").write_text("{}")
    assert f"the job that writes {folder} has not ended" in export_file(folder, "yolo", tmp_path / "yolo")
    (folder / "_SUCCESS").write_text("{}")
    assert "has not ended" not in export_file(folder, "yolo", tmp_path / "yolo")
