"""The scenes that training and evaluation draw."""

from __future__ import annotations

import numpy as np
import pytest

from sam_endpoint.evaluation.scenes import draw_scene
from sam_endpoint.evaluation.scenes.dataset import visible_masks


@pytest.mark.parametrize("index", range(6))
def test_a_scene_depends_on_its_seed_and_index_only(index: int) -> None:
    scene, again, other_seed = draw_scene(7, index), draw_scene(7, index), draw_scene(8, index)
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.labels, again.labels)
    assert scene.image.shape != other_seed.image.shape or not np.array_equal(scene.image, other_seed.image)
    assert scene.image.dtype == np.uint8 and scene.image.shape == (*scene.labels.shape, 3)
    assert max(scene.labels.shape) == 256


def test_objects_are_visible_and_apart() -> None:
    count = 0
    for index in range(8):
        scene = draw_scene(7, index)
        masks = visible_masks(scene, np.random.default_rng(0))
        count += len(masks)
        assert all(mask.sum() >= 40 and mask.shape == scene.labels.shape for mask in masks)
        assert np.sum(masks, axis=0).max() <= 1 if masks else True  # a pixel shows one object
    assert count > 16
