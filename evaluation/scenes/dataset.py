"""Use synthetic scenes as ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.evaluation.ground_truth import SIZES, AnnotatedImage, Problems, TrueObject
from sam_endpoint.evaluation.scenes.scene import MIN_AREA, Scene, draw_scene
from sam_endpoint.model import masks
from sam_endpoint.scoring.batch.progress import tracked

HELD_OUT_SEED = 2  # training never uses scenes of this seed
MAX_OBJECTS = 8
SIZE_LIMITS = (0.01, 0.1)  # shares of the image: the smallest medium object and the smallest large object


class SceneDataset:
    """Synthetic scenes that no training uses.

    A scene has up to MAX_OBJECTS objects. Each object has at least MIN_AREA visible pixels.

    Args:
        count: The number of scenes.
        seed: The seed of the scenes.
    """

    sizes = "small: less than 1 % of the image, medium: less than 10 %, large: all others"

    def __init__(self, count: int, seed: int = HELD_OUT_SEED) -> None:
        self.count, self.seed = count, seed
        self.settings: dict[str, Any] = {"data": "scenes", "scenes": count, "seed": seed}
        self.problems = Problems()

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """Generate the scenes one by one, and show the progress."""
        for index in tracked(range(self.count), "evaluating", "scene"):
            scene = draw_scene(self.seed, index)
            objects = [
                TrueObject(f"thing {number}", _size_of(mask), masks.to_rle(mask))
                for number, mask in enumerate(visible_masks(scene, np.random.default_rng([self.seed, index])))
            ]
            yield AnnotatedImage(index, f"scene {index}", scene.image, objects)


def visible_masks(scene: Scene, rng: np.random.Generator) -> list[Mask]:
    """Select up to MAX_OBJECTS objects of a scene in random order.

    Args:
        scene: The scene.
        rng: The random generator for the selection.

    Returns:
        The visible mask of each object, `(H, W)` bool with at least MIN_AREA pixels.
    """
    labels = scene.object_labels()
    areas = np.bincount(labels.ravel(), minlength=256)
    areas[0] = 0
    chosen = rng.permutation(np.flatnonzero(areas >= MIN_AREA))[:MAX_OBJECTS]
    return [labels == label for label in chosen]


def _size_of(mask: Mask) -> str:
    return SIZES[np.searchsorted(SIZE_LIMITS, mask.mean(), side="right")]
