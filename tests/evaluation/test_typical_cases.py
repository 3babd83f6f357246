"""The picture of good, middling and bad cases."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sam_endpoint.evaluation.plots import Case, draw_typical


def test_rows_show_good_middling_and_bad_cases_of_different_images() -> None:
    """The grey level of a case's picture is its IoU in percent. Two cases belong to each image."""
    cases = [Case(level / 100, f"{level // 2}.png", Image.new("RGB", (20, 10), (level,) * 3)) for level in range(101)]
    page = np.asarray(draw_typical(cases))[..., 0]
    levels = [np.unique(page[rows][page[rows] < 200]).tolist() for rows in np.array_split(np.arange(len(page)), 3)]
    assert [len(row) for row in levels] == [3, 3, 3]
    assert all(len({level // 2 for level in row}) == 3 for row in levels)
    for row, expected in zip(levels, (90, 50, 10), strict=True):
        assert max(abs(level - expected) for level in row) <= 3


def test_a_single_case_is_drawn_in_each_row() -> None:
    page = draw_typical([Case(0.5, "a.png", Image.new("RGB", (20, 10)))])
    black = (np.asarray(page) == 0).all(2)
    assert black.sum() == 3 * 20 * 10
