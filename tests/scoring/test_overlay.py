"""Overlays of masks on images, and charts of curves."""

from __future__ import annotations

import numpy as np

from sam_endpoint.scoring.overlay import COLOURS, LINES, Shown, curves, overlay


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Return whether an image has more than 20 pixels of a colour."""
    return bool((picture.reshape(-1, 3) == colour).all(1).sum() > 20)


def test_each_curve_has_its_own_colour() -> None:
    lines = {"one": ([0, 1, 2], [0.1, 0.5, 0.9]), "other": ([0, 1, 2], [0.9, 0.5, 0.2])}
    both = np.asarray(curves(lines, "clicks", "IoU"))
    assert has(both, LINES[0]) and has(both, LINES[1]) and not has(both, LINES[2])
    single = np.asarray(curves({"one": lines["one"]}, "clicks", "IoU"))
    assert has(single, LINES[0]) and not has(single, LINES[1])
    assert set(LINES) < set(COLOURS)


def test_a_curve_of_rising_values_rises_in_the_chart() -> None:
    """Both axes go from 0 to 1. The curve is at the bottom on the left and at the top on the right."""
    picture = np.asarray(curves({"one": ([0, 1], [0, 1])}, "predicted", "true", diagonal=True)).astype(int)
    y, x = np.nonzero((picture == LINES[0]).all(-1))
    assert y[x < np.quantile(x, 0.2)].min() > y[x > np.quantile(x, 0.8)].max()


def test_an_overlay_shows_a_score_only_if_there_is_one() -> None:
    image, mask = np.full((80, 80, 3), 120, np.uint8), np.zeros((80, 80), bool)
    mask[20:60, 20:60] = True
    written, bare = (np.asarray(overlay(image, [Shown(mask, score)])) for score in (0.5, None))
    assert written.max() > 250 > 240 >= bare.max()  # the letters are white
    assert np.array_equal(written[:15], bare[:15]) and has(bare, COLOURS[0])
