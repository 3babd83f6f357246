"""Inputs of batch jobs: the rows that are read, the inputs that are rejected, and the notes about the rest."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import sources
from sam_endpoint.scoring.batch.sources.column_types import FAULT
from sam_endpoint.scoring.batch.sources.readers import BadLine

Content: TypeAlias = "str | bytes | Mapping[str, Any] | pa.Table"
Files = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a function that fills a folder: text and bytes as they are, columns as Parquet."""

    def write(content: Mapping[str, Content]) -> Path:
        for name, data in content.items():
            file = tmp_path / "in" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, (str, bytes)):
                file.write_bytes(data if isinstance(data, bytes) else data.encode())
            else:
                pq.write_table(data if isinstance(data, pa.Table) else pa.table(dict(data)), file)
        return tmp_path / "in"

    return write


def rows_in(where: Path | str) -> list[dict[str, Any]]:
    """Return all rows of an input. A broken line is represented by its error."""
    source = sources.find(str(where))
    source.check()
    rows = [row for window in source.windows(2) for row in window.to_pylist()]
    faults = [row.pop(FAULT, None) for row in rows]
    return [{"fault": str(BadLine.from_text(fault))} if fault else row for row, fault in zip(rows, faults, strict=True)]


def names_in(where: Path, root: Path) -> list[str]:
    """Return the names of the images in an input, relative to a folder."""
    return [Path(row["image"]).relative_to(root).as_posix() for row in rows_in(where)]


def png() -> bytes:
    """Return a small image as PNG bytes."""
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "PNG")
    return stream.getvalue()


def test_records_csv_lines_that_are_not_rows_and_reads_the_others(files: Files) -> None:
    text = 'image,note\na.png,"two\nlines"\nb.png,x,y\n\nc.png\n   \nd.png,"e" f\ng.png,\0\nh.png,"open\ni.png,j\n'
    wrong_count = "expected 2 fields, as many as the header has, got"
    broken = "expected a row of text, got a line that is not valid CSV"
    assert rows_in(files({"a.csv": text}) / "a.csv") == [
        {"image": "a.png", "note": "two\nlines"},
        {"fault": f"line 4 of 'a.csv', {wrong_count} 3"},
        {"fault": f"line 6 of 'a.csv', {wrong_count} 1"},
        {"fault": f"line 8 of 'a.csv', {broken} (',' expected after '\"')"},
        {"fault": "line 9 of 'a.csv', expected a row of text, got a null byte"},
        {"fault": f"lines 10 to 11 of 'a.csv', {broken} (unexpected end of data)"},
    ]


def test_records_a_late_line_that_is_not_utf8_and_reads_the_others(files: Files) -> None:
    text = b"image,note\n" + b"a.png,b\n" * 140_000 + "c.png,é\n".encode("latin-1") + b"d.png,e\n"
    source = sources.find(str(files({"a.csv": text}) / "a.csv"))
    source.check()
    *_, last = source.windows(140_001)
    assert last["image"].to_pylist() == ["d.png"]
    assert sum(len(window) for window in source.windows(1000)) == 140_002
    faults = [
        text for window in source.windows(1000) if FAULT in window.column_names for text in window[FAULT].to_pylist()
    ]
    (fault,) = filter(None, faults)
    assert "line 140002 of 'a.csv', expected a row of text, got bytes that are not UTF-8" in str(
        BadLine.from_text(fault)
    )


def test_records_json_lines_that_are_not_rows_and_reads_the_others(files: Files) -> None:
    lines = [
        '{"image": "a", "n": NaN, "input_boxes": [1, 2, 3, 4]}',
        "no json",
        "[1]",
        '{"Image": "b", "x": "\\ud800"}',
    ]
    lines += ['{"Image": "c"}', '{"image": "d", "boxes": [1]}', "", "{}", "[" * 100_000, '{"image": "e", "late": 1}']
    start = "of 'a.jsonl', expected a JSON object, got"
    assert rows_in(files({"a.jsonl": "\n".join(lines)}) / "a.jsonl") == [
        {"image": "a", "n": "NaN", "input_boxes": "[1, 2, 3, 4]", "late": None},
        {"fault": f"line 2 {start} text that is not JSON"},
        {"fault": f"line 3 {start} a JSON value of another type"},
        {"fault": f"line 4 {start} an unpaired surrogate escape"},
        {"image": "c", "n": None, "input_boxes": None, "late": None},
        {"fault": "a line of 'a.jsonl', expected the name 'input_boxes' (rename the column), got a key 'boxes'"},
        {"image": None, "n": None, "input_boxes": None, "late": None},
        {"fault": f"line 9 {start} text that is not JSON"},
        {"image": "e", "n": None, "input_boxes": None, "late": "1"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_removes_a_byte_order_mark_from_the_first_name(files: Files, name: str) -> None:
    text = "image\né.png\n" if name == "a.csv" else '{"image": "é.png"}\n'
    assert rows_in(files({name: text.encode("utf-8-sig")}) / name) == [{"image": "é.png"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,note\na.png,é\n".encode("latin-1"), "it is not UTF-8 text (Latin-1, perhaps)"),
        ("a.csv", "image,note\na.png,b\n".encode("utf-16"), "it is not UTF-8 text (UTF-16)"),
        ("a.csv", "image,note\na.png,b\n".encode("utf-16-le"), "it is not UTF-8 text (UTF-16 or binary)"),
        ("a.jsonl", '{"image": "é"}'.encode("latin-1"), "it is not UTF-8 text (Latin-1, perhaps)"),
        ("a.jsonl", "[1,\n2]", "its first lines have no JSON object"),
        ("a.csv", "", "it is empty"),
        ("a.jsonl", "\n\n", "it is empty"),
        ("a.csv", "image,note\n", "has no rows"),
        ("a.csv", "image,note,note\na,b,c\n", "has two columns 'note'; rename or remove one"),
        ("a.csv", "image,Image\na,b\n", "column 'image': expected one column of this name, got 2"),
        ("a.csv", "image;input_boxes\na;\n", "expected commas between the columns, got ';'"),
        ("a.csv", "image,input_box\na,\n", "column 'input_box': expected the name 'input_boxes'"),
        ("a.jsonl", '{"image": "a", "bboxes": []}', "column 'bboxes': expected the name 'input_boxes'"),
        ("a.csv", "image,error\na,b\n", "has a column 'error', which is the name of an output column"),
        ("a.parquet", b"PAR1 and no more", "cannot be read"),
        ("a.parquet", pa.Table.from_arrays([pa.array(["a"])] * 2, names=["image", "image"]), "has two columns 'image'"),
    ],
)
def test_rejects_bad_files_by_name(files: Files, name: str, content: Content, message: str) -> None:
    for good_files in ({}, {"b.csv": "image\nb.png\n"}):  # the bad file alone, and in a folder with a good file
        folder = files({name: content, **good_files})
        if message == "has no rows" and good_files:
            assert rows_in(folder) == [{"image": "b.png"}]
            continue
        with pytest.raises(BadData) as error:
            rows_in(folder if good_files else folder / name)
        assert f"{folder / name}'" in str(error.value) and message in str(error.value)


def test_accepts_other_spellings_and_reports_other_columns(files: Files) -> None:
    folder = files({"a.csv": ',IMAGE, Input-Boxes,shop\n0,a.png,"[1,2,3,4]",x\n'})
    assert rows_in(folder) == [{"Unnamed: 0": "0", "image": "a.png", "input_boxes": "[1,2,3,4]", "shop": "x"}]
    notes = sources.find(str(folder)).notes
    assert notes == ["columns 'Unnamed: 0', 'shop' are not read; they stay in the output"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pa.array([1]), pa.array(["x"]), ["1", "x"]),
        (pa.array([1]), pa.array([1.5]), [1.0, 1.5]),
        (pa.array([True]), pa.array([2]), ["true", "2"]),
        (pa.array([[[1, 2]]]), pa.array([[[1.5, 2.5]]]), [[[1.0, 2.0]], [[1.5, 2.5]]]),
        (pa.array([[1, 2]]), pa.array(["[3]"]), ["[1, 2]", "[3]"]),
        (pa.array([{"a": 1}]), pa.array([{"b": "x"}]), [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        (pa.array(["x"]).dictionary_encode(), pa.array(["y"], pa.string_view()), ["x", "y"]),
        (pa.nulls(1), pa.array([1]), [None, 1]),
        (pa.array([2**53]), pa.array([0.5]), [float(2**53), 0.5]),
        (pa.array([2**53 + 1]), pa.array([0.5]), [str(2**53 + 1), "0.5"]),
        (pa.array([0.5]), pa.array([-(2**53) - 1]), ["0.5", str(-(2**53) - 1)]),
        (pa.array([None], pa.int64()), pa.array([0.5]), [None, 0.5]),
        (pa.array([-1]), pa.array([2**64 - 1], pa.uint64()), ["-1", str(2**64 - 1)]),
        (pa.array([-1]), pa.array([7], pa.uint64()), [-1, 7]),
        (pa.array([0.5]), pa.array([Decimal("1.10")]), ["0.5", "1.10"]),
        (pa.array([2**62]), pa.array([Decimal("1.10")]), [str(2**62), "1.10"]),
        (pa.array([7]), pa.array([Decimal("1.10")]), ["7", "1.10"]),
    ],
)
def test_merges_tables_with_different_types_of_a_column(
    files: Files, first: pa.Array, second: pa.Array, expected: list[Any]
) -> None:
    folder = files({"a.parquet": {"image": ["a"], "v": first}, "b.parquet": {"image": ["b"], "v": second}})
    assert [row["v"] for row in rows_in(folder)] == expected


def test_merges_csv_with_parquet_and_rejects_incompatible_types(files: Files) -> None:
    box = [[20, 32, 68, 77]]
    folder = files({"0.parquet": {"image": ["a"], "input_boxes": [box]}, "1.csv": 'image,input_boxes\nb,"[1,2,3,4]"\n'})
    assert [row["input_boxes"] for row in rows_in(folder)] == ["[[20, 32, 68, 77]]", "[1,2,3,4]"]
    files({"2.parquet": {"image": [b"bytes"]}})
    with pytest.raises(
        BadData, match=r"2\.parquet': column 'image' has the type binary, and large_string in '.*0\.parquet'"
    ):
        rows_in(folder)


def test_the_error_for_a_late_value_of_another_type_hides_the_value(files: Files) -> None:
    late = '{"image": "b"}\n' * 1000 + '{"image": "c", "n": "secret"}\n'
    folder = files({"a.parquet": {"image": ["a"], "n": [1]}, "b.jsonl": late})
    with pytest.raises(BadData, match=r"b\.jsonl': column 'n' has a value that does not fit int64") as error:
        rows_in(folder)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (pa.array([[1, 2, 255], None], pa.list_(pa.uint8())), [b"\1\2\xff", None]),
        (pa.array([[1, 2, 255], []], pa.large_list(pa.uint8())), [b"\1\2\xff", b""]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.uint8(), 2)), [b"\1\2", b"\3\4"]),
        (pa.array([b"ab", None], pa.large_binary()), [b"ab", None]),
        (pa.array([b"ab", None], pa.binary_view()), [b"ab", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array([{"bytes": b"a", "path": "x"}, None]), [{"bytes": b"a", "path": "x"}, None]),
    ],
)
def test_reads_images_from_every_type_of_column(files: Files, images: pa.Array, expected: list[Any]) -> None:
    assert [row["image"] for row in rows_in(files({"a.parquet": {"image": images}}))] == expected


def test_does_not_read_hidden_files_and_temporary_files_of_spark(files: Files) -> None:
    row = "image\na.png\n"
    names = ("b.csv", "._b.csv", ".ipynb_checkpoints/b.csv", "_temporary/0/c.csv", "deep/.git/d.csv", "deep/e.csv")
    folder = files({**dict.fromkeys(names, row), "_SUCCESS": "", ".DS_Store": "", "__MACOSX/._b.csv": row})
    assert rows_in(folder) == [{"image": "a.png"}] * 2
    assert rows_in(folder / "*.csv") == [{"image": "a.png"}]
    assert rows_in(folder / "**" / "*.csv") == [{"image": "a.png"}] * 2
    assert rows_in(folder / ".ipynb_checkpoints") == rows_in(folder / "._b.csv") == [{"image": "a.png"}]
    assert rows_in(folder / ".*.csv") == [{"image": "a.png"}]


def test_an_existing_path_is_not_a_pattern(files: Files) -> None:
    folder = files({"x.png": "", "[x].png": "", "trip [2024]/a.png": "", "trip [2024]/b1.png": "", "trip 2/c.png": ""})
    assert names_in(folder / "[x].png", folder) == ["[x].png"]
    assert names_in(folder / "[wxy].png", folder) == ["x.png"]
    assert names_in(folder / "trip [2024]", folder) == ["trip [2024]/a.png", "trip [2024]/b1.png"]
    assert names_in(folder / "trip [2024]" / "b?.png", folder) == ["trip [2024]/b1.png"]
    assert names_in(folder / "trip [1-3]" / "*.png", folder) == ["trip 2/c.png"]


def test_reads_all_file_types_of_images_and_linked_folders(files: Files, tmp_path: Path) -> None:
    endings = ["jpg", "jpeg", "jpe", "jfif", "mpo", "PNG", "webp", "avif", "gif", "bmp", "tif", "TIFF", "jp2", "j2k"]
    endings += ["ppm", "pgm", "pbm", "pnm"]
    folder = files({**{f"{ending}.{ending}": "" for ending in endings}, "notes.docx": "", "a.txt": "", "b.txt": ""})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.jpg").write_bytes(b"")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "self").symlink_to(folder)
    (folder / "lost.png").symlink_to("nowhere")
    expected = sorted([*(f"{ending}.{ending}" for ending in endings), "again/linked.jpg", "lost.png"])
    assert names_in(folder, folder) == expected
    notes: list[str] = []
    assert list(sources.image_files(folder, log=notes.append)) == expected
    assert notes == sources.find(str(folder)).notes == ["3 other files were not read, such as 'a.txt'"]


def test_does_not_read_outputs_of_jobs_inside_the_input(files: Files) -> None:
    batch, labels = {"input": [], "weights": "w", "params": {}}, {"data": "d", "model": "m", "params": {}}
    output = {"image": ["a.png"], "predictions": [[]], "image_id": ["i"], "error": pa.nulls(1, pa.string())}
    folder = files(
        {
            "a.png": png(),
            "labels/job.json": json.dumps(labels),
            "labels/masks/a.png": png(),
            "labels/sheet.png": png(),
            "out.parquet": output,
            "begun.parquet.parts/job.json": json.dumps(batch),
            "begun.parquet.parts/part-000000.parquet": output,
            "on-spark/part-00000-c0.snappy.parquet": output,
            "own/job.json": '{"what": "another program"}',
            "own/b.png": png(),
        }
    )
    assert names_in(folder, folder) == names_in(folder / "**", folder) == ["a.png", "own/b.png"]
    assert list(sources.image_files(folder, log=lambda note: None)) == ["a.png", "own/b.png"]
    assert list(sources.image_files(folder, folder / "own", log=lambda note: None)) == ["a.png"]
    assert "'begun.parquet.parts' holds the output of an earlier job; it is not read" in sources.find(str(folder)).notes
    with pytest.raises(BadData, match="got only the output of earlier jobs"):
        rows_in(files({}) / "out.*")


def test_reads_only_the_tables_of_a_folder_with_tables_and_images(files: Files) -> None:
    folder = files({"a.csv": "image\nx.png\n", "x.png": png(), "y.png": png()})
    assert rows_in(folder) == [{"image": "x.png"}]
    assert sources.find(str(folder)).notes == [
        "2 images were not read, such as 'x.png'; only rows of tables are scored"
    ]
    assert sources.find(str(folder)).orientation == "stored"
    assert sources.find(str(folder / "*.png")).orientation == "upright"


def test_rejects_inputs_that_are_not_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    for where, message in [
        (tmp_path / "fifo.csv", "neither a file nor a folder"),
        ("/dev/zero", "neither a file nor a folder"),
        ("", "the input path is empty"),
        ("a\0.csv", "there is no such file"),
        ("nowhere://a.csv", "Protocol not known"),
        (tmp_path / "no*.csv", "expected tables"),
    ]:
        with pytest.raises(BadData, match=message):
            sources.find(str(where))


def test_rejects_names_that_are_not_utf8_and_folders_without_permission(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xe9.png", "wb"):
        pass
    with pytest.raises(BadData, match=r"\\udce9.png': the file name is not valid UTF-8; rename the file"):
        sources.find(str(tmp_path))
    os.unlink(os.fsencode(tmp_path) + b"/\xe9.png")
    (tmp_path / "a.png").touch()
    (tmp_path / "locked").mkdir(mode=0)
    assert os.geteuid() == 0, "this test gives up being root for a moment"
    try:
        tmp_path.chmod(0o755)
        for folder in tmp_path.parents:
            if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
                folder.chmod(0o755)
        os.seteuid(65534)
        with pytest.raises(BadData, match="Permission denied"):
            sources.find(str(tmp_path))
        with pytest.raises(BadData, match="Permission denied"):
            sources.image_files(tmp_path)
    finally:
        os.seteuid(0)


def test_reports_the_share_of_the_input_that_is_read(files: Files) -> None:
    source = sources.find(str(files({"a.csv": "image\n" + "a.png\n" * 5000})))
    shares = [source.done for _ in source.windows(1000)]
    assert np.all(np.diff(np.array(shares, float)) >= 0) and shares[-1] == 1.0 and source.rows_read == 5000
