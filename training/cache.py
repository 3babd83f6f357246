"""A cache of scenes in memory-mapped files. Drawing a scene takes longer than training on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sam_endpoint.evaluation.scenes import LONGEST_EDGE, Scene, draw_scene
from sam_endpoint.model.errors import BadParameter

Draw = Callable[[int, int], Scene]  # a scene of a seed and an index
CHUNK = 16  # scenes that a process draws at a time


def claim(file: Path, origin: Mapping[str, Any], state: Path) -> None:
    """Note what a training in a cache starts from, or check that the saved training started from the same.

    Args:
        file: The JSON file of the note.
        origin: What the training starts from, as JSON values.
        state: The file of the saved state. Without it, nothing is saved yet.

    Raises:
        BadParameter: The saved training started from something else.
    """
    text = json.dumps(origin, sort_keys=True)
    if state.exists() and file.exists() and file.read_text() != text:
        raise BadParameter(
            f"'{file.parent}' belongs to another training, with another checkpoint to start from or with other "
            "photographs; choose another --cache, or remove the folder"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


class SceneCache:
    """The first `count` scenes of a seed, in the files of a folder. A scene takes about 260 kB.

    Args:
        folder: The folder of the files; created if it does not exist.
        seed: The seed of the scenes.
        count: The number of scenes.
        edge: The longest edge of a scene in pixels.
    """

    def __init__(self, folder: Path, seed: int, count: int, edge: int = LONGEST_EDGE) -> None:
        self.folder, self.seed, self.count, self.edge = folder, seed, count, edge
        fields = {
            "images": ((edge, edge, 3), np.uint8),
            "labels": ((edge, edge), np.uint8),
            "owners": ((256,), np.uint8),
            "sizes": ((2,), np.uint16),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self.arrays = {}
        for name, (shape, dtype) in fields.items():
            path = folder / f"{name}-{seed}-{count}.npy"
            mode = "r+" if path.exists() else "w+"
            self.arrays[name] = np.lib.format.open_memmap(path, mode, dtype=dtype, shape=(count, *shape))

    def draw(self, workers: int, draw: Draw = draw_scene) -> None:
        """Draw the missing scenes in `workers` processes.

        Args:
            workers: The number of processes.
            draw: The function that draws a scene.
        """
        # `_draw` writes the size of a scene last, so a scene with a size is complete.
        missing = np.flatnonzero(self.arrays["sizes"][:, 0] == 0)
        chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
        if not chunks:
            return
        draw_chunk = partial(_draw, self.folder, self.seed, self.count, self.edge, draw)
        with ProcessPoolExecutor(workers) as pool:
            for _ in tqdm(pool.map(draw_chunk, chunks), total=len(chunks)):
                pass

    def __getitem__(self, index: int) -> Scene:
        height, width = (int(edge) for edge in self.arrays["sizes"][index])
        return Scene(
            self.arrays["images"][index, :height, :width],
            self.arrays["labels"][index, :height, :width],
            self.arrays["owners"][index],
        )


def _draw(folder: Path, seed: int, count: int, edge: int, draw: Draw, indices: np.ndarray) -> None:
    cache = SceneCache(folder, seed, count, edge)
    for index in indices:
        scene = draw(seed, int(index))
        height, width = scene.labels.shape
        cache.arrays["images"][index, :height, :width] = scene.image
        cache.arrays["labels"][index, :height, :width] = scene.labels
        cache.arrays["owners"][index] = scene.owners
        cache.arrays["sizes"][index] = height, width
