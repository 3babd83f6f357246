"""Detectors of every kind, loaded from small checkpoints with random weights that transformers has saved."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import detectors
from sam_endpoint.scoring.batch.boxes import Detection
from sam_endpoint.scoring.batch.detectors import BoxFilter, filter_boxes
from tests import pictures
from tests.detectors import NAMES, detr, grounding_dino, owl, rt_detr, yolos


def check(detections: list[Detection], image: np.ndarray, names: dict[int, str]) -> None:
    """Check that boxes are within the image, have known categories, and are sorted by score."""
    height, width = image.shape[:2]
    assert detections
    assert [detection.score for detection in detections] == sorted(
        (detection.score for detection in detections), reverse=True
    )
    for detection in detections:
        assert 0 <= detection.box[0] < detection.box[2] <= width and 0 <= detection.box[1] < detection.box[3] <= height
        assert detection.category in names


@pytest.mark.parametrize("save", [yolos, detr, rt_detr])
def test_a_detector_of_trained_classes_follows_the_rules(save: Callable[[Path], None], tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path)
    image = pictures.clutter(120, 160)
    detector = detectors.load(str(tmp_path), BoxFilter(conf=0.0, iou=1.0))
    assert detector.names == NAMES
    detections = detector(image)
    check(detections, image, NAMES)
    classes = (NAMES[detections[0].category],)
    filtered = detectors.load(str(tmp_path), BoxFilter(conf=0.0, iou=1.0, classes=classes))(image)
    assert {detection.category for detection in filtered} == {detections[0].category}
    assert len(detectors.load(str(tmp_path), BoxFilter(conf=0.0, iou=1.0, max_det=2))(image)) == 2
    with pytest.raises(BadData, match="the detector has no class 'fork'; it has cup, spoon, plate"):
        detectors.load(str(tmp_path), BoxFilter(classes=("cup", "fork")))


@pytest.mark.parametrize("save", [owl, grounding_dino])
def test_a_detector_of_words_detects_the_classes_that_are_named(save: Callable[[Path], None], tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(tmp_path)
    image = pictures.clutter(120, 160)
    detector = detectors.load(str(tmp_path), BoxFilter(conf=0.0, iou=1.0, classes=("cup", "spoon")))
    assert detector.names == {0: "cup", 1: "spoon"}
    check(detector(image), image, detector.names)
    with pytest.raises(
        BadData, match=r'this is a zero-shot detector; name the objects to detect, as in --classes "cup, spoon"'
    ):
        detectors.load(str(tmp_path), BoxFilter())


def test_rejects_models_that_are_not_detectors(sam_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="or a detector with a fixed set of classes, got a 'sam'"):
        detectors.load(str(sam_folder), BoxFilter())
    with pytest.raises(BadData, match="no detector can be loaded from"):
        detectors.load(str(tmp_path / "none"), BoxFilter())
    with pytest.raises(BadData, match="needs the package ultralytics"):
        detectors.load("yolo11n.pt", BoxFilter())


def test_an_ultralytics_detector_receives_the_rules_and_bgr_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in replaces `ultralytics`, which needs torchvision. It returns what the package's `YOLO` returns."""
    received: dict[str, object] = {}

    class Yolo:
        def __init__(self, file: str) -> None:
            self.names = {0: "person", 39: "bottle"}
            received["file"] = file

        def __call__(self, image: np.ndarray, **options: object) -> list[types.SimpleNamespace]:
            received.update(options, pixel=image[0, 0].tolist())
            boxes = types.SimpleNamespace(
                xyxy=torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 20]]),
                conf=torch.tensor([0.5, 0.9]),
                cls=torch.tensor([0.0, 39.0]),
            )
            return [types.SimpleNamespace(boxes=boxes)]

    monkeypatch.setitem(sys.modules, "ultralytics", types.SimpleNamespace(YOLO=Yolo))
    image = np.zeros((50, 60, 3), np.uint8)
    image[0, 0] = 1, 2, 3
    detector = detectors.load("yolo11n.pt", BoxFilter(conf=0.3, iou=0.6, max_det=5))
    detections = [(item.box.tolist(), item.category, round(item.score, 3)) for item in detector(image)]
    assert detections == [([5, 5, 20, 20], 39, 0.9), ([1, 2, 30, 40], 0, 0.5)]
    assert received == {
        "file": "yolo11n.pt",
        "conf": 0.3,
        "iou": 0.6,
        "max_det": 5,
        "device": None,
        "verbose": False,
        "pixel": [3, 2, 1],  # in the order BGR
    }


def test_rules_select_boxes_by_score_overlap_class_and_number() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [50, 50, 90, 90], [200, 0, 210, 9]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.3, 0.95])
    image = np.zeros((60, 100, 3), np.uint8)

    def select(rules: BoxFilter) -> list[tuple[int, float]]:
        detections = filter_boxes(image, boxes, scores, [0, 0, 1, 1, 1], {0: "a", 1: "b"}, rules)
        return [(detection.category, round(detection.score, 2)) for detection in detections]

    # Only boxes of the same class suppress each other. The last box is outside the image.
    assert select(BoxFilter()) == [(0, 0.9), (1, 0.7), (1, 0.3)]
    assert select(BoxFilter(iou=0.95)) == [(0, 0.9), (0, 0.8), (1, 0.7), (1, 0.3)]
    assert select(BoxFilter(conf=0.5)) == [(0, 0.9), (1, 0.7)]
    assert select(BoxFilter(classes=(1,))) == select(BoxFilter(classes=("b",))) == [(1, 0.7), (1, 0.3)]
    assert select(BoxFilter(max_det=1)) == [(0, 0.9)]
    cut = filter_boxes(image, boxes[3:4], scores[3:4], [1], {1: "b"}, BoxFilter())
    assert cut[0].box.tolist() == [50, 50, 90, 60]
