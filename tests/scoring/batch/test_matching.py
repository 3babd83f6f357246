"""Matching of the names in label files with the files of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import boxes
from sam_endpoint.scoring.batch.boxes import BoxLabels, MatchedBoxes
from tests.scoring.batch.label_files import SIZE, coco_file, write_files


def match(labels: BoxLabels, folder: Path, *images: str) -> MatchedBoxes:
    """Match boxes with images in a folder."""
    return labels.match({image: folder / image for image in images}, folder)


MATCHES: dict[str, tuple[list[str], dict[str, str | None]]] = {
    "the same names": (["a.jpg", "x/a.jpg"], {"a.jpg": "a.jpg", "x/a.jpg": "x/a.jpg"}),
    "a folder more": (["images/a.jpg", "images/x/a.jpg"], {"a.jpg": "images/a.jpg", "x/a.jpg": "images/x/a.jpg"}),
    "a folder less": (["x/a.jpg", "y/a.jpg"], {"in/x/a.jpg": "x/a.jpg", "in/y/a.jpg": "y/a.jpg"}),
    "a Windows path": ([r"..\media\a.jpg"], {"a.jpg": r"..\media\a.jpg"}),
    "a Windows path with a drive": ([r"C:\data\x\a.jpg"], {"x/a.jpg": r"C:\data\x\a.jpg", "y/a.jpg": None}),
    "an absolute path": (["/data/upload/a.jpg"], {"a.jpg": "/data/upload/a.jpg"}),
    "a URL": (["https://host/x/a.jpg?size=2"], {"a.jpg": "https://host/x/a.jpg?size=2"}),
    "no folders": (["a.jpg", "b.jpg"], {"x/a.jpg": "a.jpg", "y/b.jpg": "b.jpg"}),
    "other folders": (["2024/a.jpg"], {"old/a.jpg": "2024/a.jpg"}),
    "the folder of images tells train and val apart": (
        ["photos/a.jpg", "val/a.jpg"],
        {"a.jpg": "photos/a.jpg"},
    ),
    "an image in another folder is another image": (["x/a.jpg", "z/a.jpg"], {"x/a.jpg": "x/a.jpg", "y/a.jpg": None}),
    "a part of the images": (["a.jpg", "other.jpg"], {"a.jpg": "a.jpg", "b.jpg": None}),
}


@pytest.mark.parametrize("case", MATCHES)
def test_matches_names_of_a_coco_file(case: str, tmp_path: Path) -> None:
    listed, expected = MATCHES[case]
    labels = boxes.read(coco_file(tmp_path / "c.json", listed))
    matched = match(labels, tmp_path / "photos", *expected)
    for image, name in expected.items():
        lefts = [detection.box[0] for detection in matched.of(image, SIZE).detections]
        assert lefts == ([] if name is None else [listed.index(name)]), image
    assert set(matched.missing) == set(listed) - set(expected.values())
    assert list(matched.unlisted) == [image for image, name in expected.items() if name is None]


@pytest.mark.parametrize(
    ("listed", "images", "message"),
    [
        (["images/a.jpg"], ["x/a.jpg", "y/a.jpg"], "'images/a.jpg' matches 'x/a.jpg' and 'y/a.jpg'"),
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], "'a.jpg' matches 'x/a.jpg' and 'y/a.jpg'"),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg"], "the image 'a.jpg' matches 'x/a.jpg' and 'y/a.jpg'"),
        (
            ["other.jpg", "b.jpg"],
            ["a.jpg"],
            "lists 2 images, such as 'other.jpg', but none is in .*has 1 image.*'a.jpg'",
        ),
        ([], ["a.jpg"], "lists no images of .*photos', which has 1 image, such as 'a.jpg'"),
    ],
)
def test_rejects_names_that_are_ambiguous_or_match_no_image(
    listed: list[str], images: list[str], message: str, tmp_path: Path
) -> None:
    labels = boxes.read(coco_file(tmp_path / "c.json", listed))
    with pytest.raises(BadData, match=message):
        match(labels, tmp_path / "photos", *images)


YOLO_MATCHES: list[tuple[str, str, dict[str, str | None]]] = [
    # The folder of --boxes, the folder of --data, and the label file of each image.
    ("labels", "images", {"train/a.jpg": "labels/train/a.txt", "val/a.jpg": "labels/val/a.txt"}),
    ("labels", "images/val", {"a.jpg": "labels/val/a.txt"}),
    ("labels/val", "images", {"train/a.jpg": None, "val/a.jpg": "labels/val/a.txt"}),
    (".", ".", {"images/a.jpg": "labels/a.txt", "images/val/a.jpg": "labels/val/a.txt"}),
    (".", ".", {"train/images/a.jpg": "train/labels/a.txt", "val/images/a.jpg": "val/labels/a.txt"}),
    ("boxes", "photos", {"frame.0001.jpg": "boxes/frame.0001.TXT", "frame.0002.jpg": None}),
]


@pytest.mark.parametrize(("where", "data", "expected"), YOLO_MATCHES)
def test_matches_the_folders_of_yolo_files(
    where: str, data: str, expected: dict[str, str | None], tmp_path: Path
) -> None:
    """The box in each file has a different width."""
    everywhere = ["labels/train/a.txt", "labels/val/a.txt"] if where.startswith("labels") else []
    names = [*everywhere, *(name for name in expected.values() if name and name not in everywhere)]
    for i, name in enumerate(names, 1):
        write_files(tmp_path, name, text=f"0 0.5 0.5 0.{i} 0.2")
    matched = match(boxes.read(tmp_path / where), tmp_path / data, *expected)
    for image, file in expected.items():
        widths = [round(float(item.box[2] - item.box[0]) / 96, 6) for item in matched.of(image, SIZE).detections]
        assert widths == ([] if file is None else [(names.index(file) + 1) / 10]), image
