"""Label files of every kind, well-formed and malformed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import boxes

SIZE = (64, 96)
LINE = "0 0.5 0.5 0.25 0.5"
VOC_BOX = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox>"


def coco_file(file: Path, names: list[str], **content: Any) -> Path:
    """A COCO file with one box in each image, whose x is the image's position in the list."""
    annotations = [{"id": i, "image_id": i, "category_id": 1, "bbox": [i, 2, 30, 40]} for i, _ in enumerate(names)]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**whole, **content}))
    return file


def files(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_an_image_listed_twice_has_both_boxes_and_ids_may_be_text(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": "2", "file_name": "./a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    annotations = [
        {"id": i, "image_id": image_id, "category_id": category, "bbox": [i, 0, 9, 9]}
        for i, (image_id, category) in enumerate([("1", 5), (2, "5"), (3.0, 5.0)])
    ]
    file = coco_file(
        tmp_path / "c.json", [], images=images, annotations=annotations, categories=[{"id": "5", "name": "disc"}]
    )
    given = boxes.read(file)
    assert given.names == {5: "disc"} and not given.skipped
    assert [item.box[0] for item in given.of("a.jpg", SIZE).detections] == [0, 1]
    assert [(item.box[0], item.category) for item in given.of("b.jpg", SIZE).detections] == [(2, 5)]


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
def test_a_bad_annotation_costs_only_itself(change: Any, reason: str, tmp_path: Path) -> None:
    good = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}
    file = coco_file(tmp_path / "c.json", ["a.jpg"], annotations=[good, {**good, "id": 7, **change}, good])
    found = boxes.read(file).of("a.jpg", SIZE)
    assert [item.box.tolist() for item in found.detections] == [[1, 2, 4, 6]] * 2
    assert found.skipped == [reason]


def test_names_that_are_no_text_can_be_printed_and_written(tmp_path: Path) -> None:
    """JSON and YAML can escape halves of characters, which no file and no terminal takes."""
    (tmp_path / "c.json").write_text(
        r'{"images": [{"id": 1, "file_name": "a\ud800.jpg"}, {"id": 2, "file_name": "a.jpg"}], "annotations": '
        r'[{"id": "\ud800", "image_id": 2}], "categories": [{"id": 1, "name": "\ud800"}]}'
    )
    given = boxes.read(tmp_path / "c.json")
    matched = given.match({"a.jpg": tmp_path / "a.jpg"}, tmp_path)
    words = [*given.names.values(), *matched.missing, *matched.of("a.jpg", SIZE).skipped]
    assert len(words) == 3 and all(word.encode() for word in words)
    files(tmp_path, "y/a.txt", text=LINE)
    files(tmp_path, "y/data.yaml", text=r'names: ["\ud800"]')
    assert boxes.read(tmp_path / "y").names == {0: r"\ud800"}


def test_an_output_among_the_label_files_is_not_read(tmp_path: Path) -> None:
    files(tmp_path, "a.txt", "out/labels/a.txt", text=LINE)
    assert list(boxes.read(tmp_path, without=tmp_path / "out").listed) == ["a"]


def test_annotations_of_no_image_are_reported(tmp_path: Path) -> None:
    annotations = [{"id": 7, "image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}, "x", {"image_id": None}]
    given = boxes.read(coco_file(tmp_path / "c.json", ["a.jpg"], annotations=annotations))
    assert list(given.skipped) == [
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
def test_malformed_coco_files(case: str, tmp_path: Path) -> None:
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
def test_a_bad_yolo_line_costs_only_itself(line: str, tmp_path: Path) -> None:
    files(tmp_path, "a.txt", text=f"\n{LINE}\n{line}\n{LINE}\n")
    given = boxes.read(tmp_path)
    found = given.of("a.jpg", SIZE)
    assert [item.box.tolist() for item in found.detections] == [[36, 16, 60, 48]] * 2
    assert found.skipped == [f"a.txt line 3: expected class x y width height (or an outline) in 0..1, got '{line}'"]
    assert given.names == {0: "class 0"}


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
def test_class_names(file: str, text: str, names: dict[int, str], tmp_path: Path) -> None:
    """In every encoding that begins with a byte-order mark, as in UTF-8 without."""
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for name, content in ((file, text), ("boxes/a.txt", f"{LINE}\r\n")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content.encode(encoding))
        given = boxes.read(tmp_path / "boxes")
        assert given.names == names
        assert len(given.of("a.jpg", SIZE).detections) == 1


def test_classes_without_a_name_keep_their_numbers(tmp_path: Path) -> None:
    files(tmp_path, "a.txt", text="3 0.5 0.5 0.2 0.2\n")
    assert boxes.read(tmp_path).names == {0: "class 0", 1: "class 1", 2: "class 2", 3: "class 3"}
    files(tmp_path, "classes.txt", text="disc\n")
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
def test_a_data_yaml_without_class_names(text: str, tmp_path: Path) -> None:
    files(tmp_path, "a.txt", text=LINE)
    files(tmp_path, "data.yaml", text=text)
    with pytest.raises(BadData, match=r"data\.yaml"):
        boxes.read(tmp_path)


def voc(*objects: str, head: str = "") -> str:
    return f"<annotation>{head}{''.join(f'<object>{item}</object>' for item in objects)}</annotation>"


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
def test_a_bad_object_of_a_voc_file_costs_only_itself(bad: str, tmp_path: Path) -> None:
    good = f"<name> disc</name>{VOC_BOX}"
    (tmp_path / "a.xml").write_bytes(voc(good, bad, good).encode("utf-8-sig"))
    files(tmp_path, "README.txt", text="Two objects.")
    given = boxes.read(tmp_path)
    found = given.of("a.jpg", SIZE)
    assert given.names == {0: "disc"}
    assert [item.box.tolist() for item in found.detections] == [[10, 20, 30, 60]] * 2
    assert found.skipped == ["a.xml object 2: expected a name and a bndbox with xmin, ymin, xmax and ymax"]


def expanding(levels: int) -> str:
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "x" * 10}">' for i in range(levels))
    return f"<!DOCTYPE annotation [{entities}]>" + voc(f"<name>&e{levels - 1};</name>{VOC_BOX}")


@pytest.mark.parametrize(
    "text",
    [
        expanding(12),
        '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/hostname">]>' + voc(f"<name>&f;</name>{VOC_BOX}"),
        "<annotation><object>",
        "",
        "<?xml version='1.0' encoding='none'?><annotation/>",
    ],
    ids=["a billion laughs", "another file's content", "cut off", "empty", "unknown encoding"],
)
def test_a_voc_file_that_cannot_be_read_costs_only_its_image(text: str, tmp_path: Path) -> None:
    files(tmp_path, "a.xml", text=text)
    files(tmp_path, "b.xml", text=voc(f"<name>disc</name>{VOC_BOX}"))
    start = time.perf_counter()
    given = boxes.read(tmp_path)
    assert given.names == {0: "disc"} and len(given.of("b.jpg", SIZE).detections) == 1
    with pytest.raises(BadData, match=r"'a\.xml': expected objects with a name and a bndbox"):
        given.of("a.jpg", SIZE)
    assert time.perf_counter() - start < 20


def test_folders_with_label_files_of_two_kinds(tmp_path: Path) -> None:
    files(tmp_path, "a.xml", text=voc(f"<name>disc</name>{VOC_BOX}"))
    files(tmp_path, "b.txt", text=LINE)
    with pytest.raises(BadData, match=r"boxes both in .xml files, such as 'a.xml', and in .txt files, such as 'b.txt'"):
        boxes.read(tmp_path)


def test_hidden_files_and_folders_named_like_files(tmp_path: Path) -> None:
    files(tmp_path, "._a.txt", ".ipynb_checkpoints/a.txt", "a.txt", text=LINE)
    (tmp_path / "b.txt").mkdir()
    assert list(boxes.read(tmp_path).listed) == ["a"]
    files(tmp_path, "c.json/a.txt", text=LINE)
    assert len(boxes.read(tmp_path / "c.json").of("a.jpg", SIZE).detections) == 1


def test_a_label_file_that_is_no_text_costs_only_its_image(tmp_path: Path) -> None:
    files(tmp_path, "a.txt", text=LINE)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "c.txt").symlink_to(tmp_path / "none")
    given = boxes.read(tmp_path)
    assert len(given.of("a.jpg", SIZE).detections) == 1
    with pytest.raises(BadData, match=r"'b.txt' is not UTF-8 text"):
        given.of("b.jpg", SIZE)
    with pytest.raises(OSError):
        given.of("c.jpg", SIZE)
