"""Reading of boxes from COCO, YOLO and VOC label files, well-formed and malformed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import boxes
from tests.scoring.batch.label_files import LINE, SIZE, VOC_BOX, coco_file, voc, write_files


def test_merges_the_boxes_of_an_image_that_is_listed_twice(tmp_path: Path) -> None:
    """Some ids are text or floats."""
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "./a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    annotations = [
        {"id": i, "image_id": image_id, "category_id": category, "bbox": [i, 0, 9, 9]}
        for i, (image_id, category) in enumerate([("1", 5), (2, "5"), (3.0, 5.0)])
    ]
    file = coco_file(
        tmp_path / "c.json", [], images=images, annotations=annotations, categories=[{"id": "5", "name": "disc"}]
    )
    labels = boxes.read(file)
    assert labels.names == {5: "disc"} and not labels.skipped
    assert [item.box[0] for item in labels.of("a.jpg", SIZE).detections] == [0, 1]
    assert [(item.box[0], item.category) for item in labels.of("b.jpg", SIZE).detections] == [(2, 5)]


BAD_ANNOTATIONS: list[tuple[Any, str]] = [
    ({"bbox": None}, "annotation 7: expected bbox [x, y, width, height], got nothing"),
    ({"bbox": [[1, 2, 3, 4, 5, 6]]}, "annotation 7: expected bbox [x, y, width, height], got a list of 1"),
    ({"bbox": [1, 2, 3]}, "annotation 7: expected bbox [x, y, width, height], got a list of 3"),
    ({"bbox": "1234"}, "annotation 7: expected bbox [x, y, width, height], got text of 4 characters"),
    ({"bbox": [1e308, 0, 1e308, 1]}, "annotation 7: expected bbox [x, y, width, height], got a list of 4"),
    ({"bbox": [10**400, 0, 1, 1]}, "annotation 7: expected bbox [x, y, width, height], got a list of 4"),
    ({"category_id": 9}, "annotation 7: its category_id is not the id of a category in 'categories'"),
    ({"category_id": [1]}, "annotation 7: its category_id is not the id of a category in 'categories'"),
    ({"category_id": 10**400}, "annotation 7: its category_id is not the id of a category in 'categories'"),
    ({"id": None, "category_id": None}, "annotations[1]: its category_id is not the id of a category in 'categories'"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_ANNOTATIONS)
def test_skips_a_bad_annotation_and_reads_the_others(change: Any, reason: str, tmp_path: Path) -> None:
    good = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}
    file = coco_file(tmp_path / "c.json", ["a.jpg"], annotations=[good, {**good, "id": 7, **change}, good])
    matched = boxes.read(file).of("a.jpg", SIZE)
    assert [item.box.tolist() for item in matched.detections] == [[1, 2, 4, 6]] * 2
    assert matched.skipped == [reason]


def test_names_with_escaped_surrogates_can_be_printed_and_written(tmp_path: Path) -> None:
    """JSON and YAML can escape half a character, which neither a file nor a terminal accepts."""
    (tmp_path / "c.json").write_text(
        r'{"images": [{"id": 1, "file_name": "a\ud800.jpg"}, {"id": 2, "file_name": "a.jpg"}], "annotations": '
        r'[{"id": "\ud800", "image_id": 2}], "categories": [{"id": 1, "name": "\ud800"}]}'
    )
    labels = boxes.read(tmp_path / "c.json")
    matched = labels.match({"a.jpg": tmp_path / "a.jpg"}, tmp_path)
    words = [*labels.names.values(), *matched.missing, *matched.of("a.jpg", SIZE).skipped]
    assert len(words) == 3 and all(word.encode() for word in words)
    write_files(tmp_path, "y/a.txt", text=LINE)
    write_files(tmp_path, "y/data.yaml", text=r'names: ["\ud800"]')
    assert boxes.read(tmp_path / "y").names == {0: r"\ud800"}


def test_does_not_read_an_output_inside_the_folder_of_labels(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", "out/labels/a.txt", text=LINE)
    assert list(boxes.read(tmp_path, without=tmp_path / "out").listed) == ["a"]


def test_reports_annotations_without_an_image(tmp_path: Path) -> None:
    annotations = [{"id": 7, "image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}, "x", {"image_id": None}]
    labels = boxes.read(coco_file(tmp_path / "c.json", ["a.jpg"], annotations=annotations))
    assert list(labels.skipped) == [
        "annotation 7: its image_id is not the id of an image in 'images'",
        "annotations[1]: expected an object, got text of 1 characters",
        "annotations[2]: its image_id is not the id of an image in 'images'",
    ]


BAD_COCO: dict[str, tuple[bytes, str]] = {
    "other encoding": ('{"images": "é"}'.encode("latin-1"), "can't decode"),
    "list": (b"[1, 2]", "it has a list of 2 instead of an object"),
    "number": (b"7", "it has the number 7 instead of an object"),
    "huge number": (b'{"images": ' + b"9" * 5000 + b"}", "is not a COCO instances file"),
    "deep": (b"[" * 100_000, "is not a COCO instances file"),
    "no list": (b'{"categories": {}, "annotations": [], "images": []}', "its 'categories' is an object with 0 keys"),
    "no name": (b'{"categories": [{"id": 1}], "annotations": [], "images": []}', r"categories\[0\] has no 'name'"),
    "null id": (
        b'{"categories": [{"id": null, "name": "a"}], "annotations": [], "images": []}',
        r"the 'id' of categories\[0\] is nothing, expected a whole number",
    ),
    "text id": (
        b'{"categories": [{"id": "a", "name": "a"}], "annotations": [], "images": []}',
        "text of 1 characters, expected a whole number",
    ),
    "two names of an id": (
        b'{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "annotations": [], "images": []}',
        r"categories\[1\] has the id of another category",
    ),
    "two images of an id": (
        b'{"categories": [], "annotations": [], "images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}',
        "'a' and 'b' have the same id",
    ),
    "no file name": (
        b'{"categories": [], "annotations": [], "images": [{"id": 1, "file_name": ".."}]}',
        r"images\[0\] lacks an 'id' or a 'file_name'",
    ),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_rejects_malformed_coco_files(case: str, tmp_path: Path) -> None:
    content, message = BAD_COCO[case]
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(BadData, match=message):
        boxes.read(tmp_path / "c.json")


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.2",
        "0 0.5 0.5 0.2 7",
        "cup 0.5 0.5 0.2 0.2",
        "0",
        "0.5 0.5 0.5 0.2 0.2",
        "-1 0.5 0.5 0.2 0.2",
        "1e999 0.5 0.5 0.2 0.2",
        "1e300 0.5 0.5 0.2 0.2",
        "0 nan 0.5 0.2 0.2",
        "0,0.5,0.5,0.2,0.2",
    ],
)
def test_skips_a_bad_yolo_line_and_reads_the_others(line: str, tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", text=f"\n{LINE}\n{line}\n{LINE}\n")
    labels = boxes.read(tmp_path)
    matched = labels.of("a.jpg", SIZE)
    assert [item.box.tolist() for item in matched.detections] == [[36, 16, 60, 48]] * 2
    assert matched.skipped == [f"a.txt line 3: expected class x y width height (or an outline) in 0..1, got '{line}'"]
    assert labels.names == {0: "class 0"}


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("boxes/classes.txt", "disc\r\n\r\nlong  name\r\n\r\n", {0: "disc", 1: "", 2: "long  name"}),
        ("boxes/data.yaml", "names: [disc, no, 1.0]", {0: "disc", 1: "no", 2: "1.0"}),
        ("data.yaml", "nc: 2\nnames:\n  0: disc\n  1: on\n", {0: "disc", 1: "on"}),
        ("dataset.yaml", "names: {1: ring, 0: disc}", {0: "disc", 1: "ring"}),
        ("boxes/classes.txt", "disc\u2028disc\n", {0: "disc\u2028disc"}),
    ],
)
def test_reads_class_names_from_every_file_that_lists_them(
    file: str, text: str, names: dict[int, str], tmp_path: Path
) -> None:
    """The encoding is UTF-8, or an encoding with a byte-order mark."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for name, content in ((file, text), ("boxes/a.txt", f"{LINE}\r\n")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content.encode(encoding))
        labels = boxes.read(tmp_path / "boxes")
        assert labels.names == names
        assert len(labels.of("a.jpg", SIZE).detections) == 1


def test_numbers_classes_without_a_name(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", text="3 0.5 0.5 0.2 0.2\n")
    assert boxes.read(tmp_path).names == {0: "class 0", 1: "class 1", 2: "class 2", 3: "class 3"}
    write_files(tmp_path, "classes.txt", text="disc\n")
    assert boxes.read(tmp_path).names == {0: "disc", 1: "class 1", 2: "class 2", 3: "class 3"}


@pytest.mark.parametrize(
    "text",
    [
        "nc: 2",
        "names: disc",
        "names: [[a, b]]",
        "names: {a: b}",
        "[",
        "names: {-1: x}",
        "names: {99999999999: x}",
        "names: " + "[" * 5000,
        "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]",
    ],
    ids=lambda text: text[:20],
)
def test_rejects_a_data_yaml_without_class_names(text: str, tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", text=LINE)
    write_files(tmp_path, "data.yaml", text=text)
    with pytest.raises(BadData, match=r"data\.yaml"):
        boxes.read(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        "<name>disc</name>",
        VOC_BOX,
        "<name> </name>" + VOC_BOX,
        "<name>disc</name>" + VOC_BOX.replace("11", "1e999"),
        "<name>disc</name><bndbox><xmin>1</xmin></bndbox>",
        "<name>disc</name>" + VOC_BOX.replace("11", "x"),
    ],
)
def test_skips_a_bad_voc_object_and_reads_the_others(bad: str, tmp_path: Path) -> None:
    good = f"<name> disc</name>{VOC_BOX}"
    (tmp_path / "a.xml").write_bytes(voc(good, bad, good).encode("utf-8-sig"))
    write_files(tmp_path, "README.txt", text="Two objects.")
    labels = boxes.read(tmp_path)
    matched = labels.of("a.jpg", SIZE)
    assert labels.names == {0: "disc"}
    assert [item.box.tolist() for item in matched.detections] == [[10, 20, 30, 60]] * 2
    assert matched.skipped == ["a.xml object 2: expected a name and a bndbox with xmin, ymin, xmax and ymax"]


def nested_entities(levels: int) -> str:
    """Return a VOC file whose name is an entity that expands to ten times the text of the next entity, and so on."""
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 10}">' for i in range(levels))
    return f"<!DOCTYPE annotation [{entities}]>" + voc(f"<name>&e{levels - 1};</name>{VOC_BOX}")


@pytest.mark.parametrize(
    "text",
    [
        nested_entities(12),
        '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/hostname">]>' + voc(f"<name>&f;</name>{VOC_BOX}"),
        "<annotation><object>",
        "",
        "<?xml version='1.0' encoding='none'?><annotation/>",
    ],
    ids=["a billion laughs", "another file's content", "cut off", "empty", "unknown encoding"],
)
def test_a_voc_file_that_cannot_be_read_affects_only_its_image(text: str, tmp_path: Path) -> None:
    write_files(tmp_path, "a.xml", text=text)
    write_files(tmp_path, "b.xml", text=voc(f"<name>disc</name>{VOC_BOX}"))
    start = time.perf_counter()
    labels = boxes.read(tmp_path)
    assert labels.names == {0: "disc"} and len(labels.of("b.jpg", SIZE).detections) == 1
    with pytest.raises(BadData, match=r"'a\.xml': expected objects with a name and a bndbox"):
        labels.of("a.jpg", SIZE)
    assert time.perf_counter() - start < 20


def test_rejects_a_folder_with_label_files_of_two_kinds(tmp_path: Path) -> None:
    write_files(tmp_path, "a.xml", text=voc(f"<name>disc</name>{VOC_BOX}"))
    write_files(tmp_path, "b.txt", text=LINE)
    with pytest.raises(BadData, match=r"boxes both in .xml files, such as 'a.xml', and in .txt files, such as 'b.txt'"):
        boxes.read(tmp_path)


def test_ignores_hidden_files_and_folders_named_like_files(tmp_path: Path) -> None:
    write_files(tmp_path, "._a.txt", ".ipynb_checkpoints/a.txt", "a.txt", text=LINE)
    (tmp_path / "b.txt").mkdir()
    assert list(boxes.read(tmp_path).listed) == ["a"]
    write_files(tmp_path, "c.json/a.txt", text=LINE)
    assert len(boxes.read(tmp_path / "c.json").of("a.jpg", SIZE).detections) == 1


def test_a_label_file_that_is_not_text_affects_only_its_image(tmp_path: Path) -> None:
    write_files(tmp_path, "a.txt", text=LINE)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "c.txt").symlink_to(tmp_path / "none")
    labels = boxes.read(tmp_path)
    assert len(labels.of("a.jpg", SIZE).detections) == 1
    with pytest.raises(BadData, match=r"'b.txt' is not UTF-8 text"):
        labels.of("b.jpg", SIZE)
    with pytest.raises(OSError):
        labels.of("c.jpg", SIZE)
