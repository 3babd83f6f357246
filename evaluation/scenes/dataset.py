"""Drawn scenes as the ground truth of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from sam_endpoint.evaluation.geometry import Mask
from sam_endpoint.evaluation.ground_truth import SIZES, AnnotatedImage, Problems, TrueObject
from sam_endpoint.evaluation.scenes.scene import MIN_AREA, Scene, draw_scene
from sam_endpoint.model import masks

HELD_OUT_SEED = 2  # no training draws scenes of this seed
MAX_OBJECTS = 8
SIZE_LIMITS = (0.01, 0.1)  # shares of the image, from which an object is medium and large


class SceneDataset:
    """The first `count` held-out scenes, each with up to MAX_OBJECTS visible objects of MIN_AREA pixels or more."""

    sizes = "small: under 1 % of the image, medium: under 10 %, large: from 10 % on"

    def __init__(self, count: int, seed: int = HELD_OUT_SEED) -> None:
        self.count, self.seed = count, seed
        self.settings: dict[str, Any] = {"data": "scenes", "scenes": count, "seed": seed}
        self.problems = Problems()

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for index in tqdm(range(self.count), unit="scene", desc="evaluating", disable=None):
            scene = draw_scene(self.seed, index)
            objects = [
                TrueObject(f"thing {number}", _size_of(mask), masks.to_rle(mask))
                for number, mask in enumerate(visible_masks(scene, np.random.default_rng([self.seed, index])))
            ]
            yield AnnotatedImage(index, f"scene {index}", scene.image, objects)


def visible_masks(scene: Scene, rng: np.random.Generator) -> list[Mask]:
    """Return masks of up to MAX_OBJECTS objects of a scene in random order.

    Returns:
        (height, width) bool each, of MIN_AREA pixels or more.
    """
    labels = scene.object_labels()
    areas = np.bincount(labels.ravel(), minlength=256)
    areas[0] = 0
    chosen = rng.permutation(np.flatnonzero(areas >= MIN_AREA))[:MAX_OBJECTS]
    return [labels == label for label in chosen]


def _size_of(mask: Mask) -> str:
    return SIZES[np.searchsorted(SIZE_LIMITS, mask.mean(), side="right")]
