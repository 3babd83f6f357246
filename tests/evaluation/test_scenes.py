"""The drawn scenes for training and evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from sam_endpoint.evaluation.scenes import draw_scene
from sam_endpoint.evaluation.scenes.dataset import visible_masks


@pytest.mark.parametrize("index", range(6))
def test_a_scene_depends_only_on_its_seed_and_index(index: int) -> None:
    scene, same_scene, other_seed = draw_scene(7, index), draw_scene(7, index), draw_scene(8, index)
    assert np.array_equal(scene.image, same_scene.image) and np.array_equal(scene.labels, same_scene.labels)
    assert scene.image.shape != other_seed.image.shape or not np.array_equal(scene.image, other_seed.image)
    assert scene.image.dtype == np.uint8 and scene.image.shape == (*scene.labels.shape, 3)
    assert max(scene.labels.shape) == 256


def test_objects_are_visible_and_do_not_overlap() -> None:
    count = 0
    for index in range(8):
        scene = draw_scene(7, index)
        masks = visible_masks(scene, np.random.default_rng(0))
        count += len(masks)
        assert all(mask.sum() >= 40 and mask.shape == scene.labels.shape for mask in masks)
        assert np.sum(masks, axis=0).max() <= 1 if masks else True  # a pixel shows at most one object
    assert count > 16
