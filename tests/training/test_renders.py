"""Meshes, layout and masks of rendered pictures. Blender itself is not needed here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from sam_endpoint.training.photographs import read_photographs
from sam_endpoint.training.renders.layout import arrange, coco_annotations
from sam_endpoint.training.renders.meshes import Part, Rng, ball, box, revolve, tube
from sam_endpoint.training.renders.things import THINGS, Thing


def volume(part: Part) -> float:
    """Return the volume inside a closed surface, positive if its faces are seen anticlockwise from outside."""
    total = 0.0
    for face in part.faces:
        first = part.points[face[0]]
        for second, third in pairwise(face[1:]):
            total += float(np.dot(first, np.cross(part.points[second], part.points[third]))) / 6
    return total


def test_surfaces_of_revolution_tubes_boxes_and_balls_have_their_volumes() -> None:
    polygon = 24 / 2 * np.sin(2 * np.pi / 24)  # the area of a regular polygon of 24 corners and radius 1
    cylinder = revolve([(0, 0), (2, 0), (2, 3), (0, 3)])
    assert volume(cylinder) == pytest.approx(12 * polygon, rel=1e-3)
    straight = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    section = 10 / 2 * np.sin(2 * np.pi / 10)
    assert volume(tube(straight, np.full(3, 0.5), flat=0.4)) == pytest.approx(2 * section * 0.25 * 0.4)
    assert volume(box((0, 0, 0), (1, 2, 3))) == pytest.approx(6)
    assert volume(ball((5, 5, 5), (1, 2, 3))) == pytest.approx(4 / 3 * np.pi * 6, rel=0.05)


@pytest.mark.parametrize("make", THINGS, ids=lambda make: make.__name__)
def test_a_thing_has_closed_parts_and_a_first_material(make: Callable[[Rng], Thing]) -> None:
    for seed in range(5):
        parts = make(np.random.default_rng(seed))
        assert parts[0].materials
        for part in parts:
            assert np.isfinite(part.points).all()
            edges = Counter((a, b) for face in part.faces for a, b in zip(face, face[1:] + face[:1], strict=True))
            assert set(edges.values()) == {1}
            assert all((b, a) in edges for a, b in edges)  # each edge has a face on both sides


def test_things_stand_on_the_plane_or_on_each_other() -> None:
    stacked = 0
    for seed in range(20):
        things, extent = arrange(np.random.default_rng(seed), 10)
        assert len(things) >= 5
        below = 0.0
        for thing in things:
            points = np.concatenate([part.points for part in thing])
            low, high = points[:, 2].min(), points[:, 2].max()
            assert low == pytest.approx(0, abs=1e-9) or low == pytest.approx(below)
            stacked += low > 1e-9
            below = high
            assert np.linalg.norm(points[:, :2], axis=1).max() <= extent + 1e-9
    assert stacked


def test_masks_of_things_and_of_their_pieces(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int64)
    labels[2:10, 3:9] = 1
    labels[10:14, 3:9] = 2  # another piece of the same thing
    labels[5:15, 20:28] = 3
    labels[0, 0] = 4  # too small
    found = coco_annotations(labels, [0, 0, 1, 2])
    decoded = [coco.decode(coco.frPyObjects(entry["segmentation"], 20, 30)).astype(bool) for entry in found]
    expected = [(labels == 1) | (labels == 2), labels == 3, labels == 1, labels == 2]
    assert [mask.tolist() for mask in decoded] == [mask.tolist() for mask in expected]
    assert [entry["area"] for entry in found] == [72, 80, 48, 24]

    Image.new("RGB", (30, 20)).save(tmp_path / "0.jpg")
    images = [{"id": 0, "file_name": "0.jpg", "width": 30, "height": 20}]
    entries = [{**entry, "id": i, "image_id": 0, "category_id": 1} for i, entry in enumerate(found)]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": entries}))
    (photograph,) = read_photographs([tmp_path])
    assert photograph.boxes[:2].tolist() == [[3, 2, 9, 14], [20, 5, 28, 15]]
