"""Scenes that training and evaluation draw."""

from __future__ import annotations

import numpy as np
import pytest

from training.ground_truth import things
from training.scenes import scene


@pytest.mark.parametrize("index", range(6))
def test_a_scene_is_what_its_seed_and_index_say(index: int) -> None:
    drawn, again, other = scene(7, index), scene(7, index), scene(8, index)
    assert np.array_equal(drawn.image, again.image) and np.array_equal(drawn.labels, again.labels)
    assert drawn.image.shape != other.image.shape or not np.array_equal(drawn.image, other.image)
    assert drawn.image.dtype == np.uint8 and drawn.image.shape == (*drawn.labels.shape, 3)
    assert max(drawn.labels.shape) == 256


def test_things_are_visible_and_apart() -> None:
    found = 0
    for index in range(8):
        drawn = scene(7, index)
        masks = things(drawn, np.random.default_rng(0))
        found += len(masks)
        assert all(mask.sum() >= 40 and mask.shape == drawn.labels.shape for mask in masks)
        assert np.sum(masks, axis=0).max() <= 1 if masks else True  # of two things only one is seen at a pixel
    assert found > 16
