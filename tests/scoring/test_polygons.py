"""Simplified outlines: fewer corners, and everywhere close to the outline they came from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sam_endpoint.model.masks import to_polygons
from sam_endpoint.scoring.polygons import perimeter, simplify, simplify_outline
from tests import pictures


def filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask of a polygon, drawn eight times as large, where the width of a drawn edge matters little."""
    canvas = Image.new("1", (size[1] * 8, size[0] * 8))
    ImageDraw.Draw(canvas).polygon([tuple(8 * corner) for corner in polygon], fill=1)
    return np.asarray(canvas.resize(size[::-1], Image.Resampling.BOX, reducing_gap=None).convert("L")) > 0


@pytest.mark.parametrize(("radius", "overlap"), [(4, 0.7), (12, 0.85), (40, 0.95), (75, 0.97)])
def test_the_outline_of_a_disc(radius: int, overlap: float) -> None:
    y, x = np.mgrid[:160, :160]
    disc = (x - 80) ** 2 + (y - 80) ** 2 < radius**2
    outline = np.array(to_polygons(disc)[0]).reshape(-1, 2)
    simple = simplify_outline(outline, 0.0005)
    assert 4 <= len(simple) <= len(outline) / 3
    assert pictures.iou(filled(simple, (160, 160)), disc) > overlap
    assert len(simplify_outline(outline, 0.02)) <= len(simple)
    assert (simplify_outline(outline, 0) == outline).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_corner_moves_and_none_is_left_out_that_is_farther_than_the_tolerance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.random(200) * 2 * np.pi)
    polygon = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (50 + rng.normal(0, 2, (200, 1)))
    simple = simplify(polygon, 1.5)
    corners = {tuple(corner) for corner in polygon}
    assert 3 <= len(simple) < 150 and {tuple(corner) for corner in simple} <= corners
    edges = list(zip(simple, np.roll(simple, -1, axis=0), strict=True))
    for corner in polygon:
        assert min(distance(corner, start, end) for start, end in edges) <= 1.5 + 1e-9


def distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    along = float(np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1))
    return float(np.hypot(*(point - start - along * (end - start))))


def test_polygons_without_an_area() -> None:
    line = np.array([[0.0, 0], [5, 0], [10, 0], [5, 0.1]])
    assert len(simplify(line, 50)) == 3
    same = np.zeros((6, 2))
    assert 1 <= len(simplify(same, 1)) <= 6 and perimeter(same) == 0
    triangle = np.array([[0.0, 0], [1, 0], [0, 1]])
    assert (simplify(triangle, 9) == triangle).all()
    assert perimeter(triangle) == pytest.approx(2 + 2**0.5)
