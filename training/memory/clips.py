"""Drawn clips for training, in memory-mapped files, and short windows of them."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sam_endpoint.evaluation.clips.clip import FRAMES, HELD_OUT_SEED, draw_clip
from sam_endpoint.evaluation.scenes import LONGEST_EDGE, MIN_AREA
from sam_endpoint.model.errors import BadParameter

MAX_STRIDE = 4  # the largest number of frames from one frame of a window to the next
ATTEMPTS = 10  # at a window in which an object is visible in the first frame


@dataclass(frozen=True)
class Window:
    """A few frames of a clip, with the masks of some objects.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (T, p, H, W) bool. In the first frame, every object is visible.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]


class ClipCache:
    """The first `count` clips of a seed, in the files of a folder. A clip takes about 8 MB.

    Args:
        folder: The folder of the files; created if it does not exist.
        seed: The seed of the clips.
        count: The number of clips.

    Raises:
        BadParameter: The seed is that of the held-out clips.
    """

    def __init__(self, folder: Path, seed: int, count: int) -> None:
        if seed == HELD_OUT_SEED:
            raise BadParameter(f"expected a --seed other than {HELD_OUT_SEED}, the seed of the held-out clips")
        self.folder, self.seed, self.count = folder, seed, count
        edge = LONGEST_EDGE
        shapes = {"frames": (FRAMES, edge, edge, 3), "labels": (FRAMES, edge, edge), "sizes": (2,)}
        folder.mkdir(parents=True, exist_ok=True)
        self.arrays = {}
        for name, shape in shapes.items():
            path = folder / f"{name}-{seed}-{count}.npy"
            mode = "r+" if path.exists() else "w+"
            dtype = np.uint16 if name == "sizes" else np.uint8
            self.arrays[name] = np.lib.format.open_memmap(path, mode, dtype=dtype, shape=(count, *shape))

    def draw(self, workers: int) -> None:
        """Draw the missing clips in `workers` processes."""
        # `_draw` writes the size of a clip last, so a clip with a size is complete.
        missing = np.flatnonzero(self.arrays["sizes"][:, 0] == 0).tolist()
        if not missing:
            return
        with ProcessPoolExecutor(workers) as pool:
            draw = partial(_draw, self.folder, self.seed, self.count)
            for _ in tqdm(pool.map(draw, missing), total=len(missing), desc="drawing clips", disable=None):
                pass

    def window(self, rng: np.random.Generator, length: int, max_objects: int) -> Window:
        """Choose `length` frames of a random clip, at equal distances, and objects that are visible in the first.

        Half of the windows run backward, and half are mirrored.
        """
        for _ in range(ATTEMPTS):
            index = int(rng.integers(self.count))
            height, width = (int(edge) for edge in self.arrays["sizes"][index])
            stride = int(rng.integers(1, min(MAX_STRIDE, (FRAMES - 1) // (length - 1)) + 1))
            start = int(rng.integers(FRAMES - stride * (length - 1)))
            chosen = slice(start, start + stride * (length - 1) + 1, stride)
            frames = self.arrays["frames"][index, chosen, :height, :width]
            labels = self.arrays["labels"][index, chosen, :height, :width]
            if rng.random() < 0.5:
                frames, labels = frames[::-1], labels[::-1]
            if rng.random() < 0.5:
                frames, labels = frames[:, :, ::-1], labels[:, :, ::-1]
            areas = np.bincount(labels[0].ravel(), minlength=256)
            visible = np.flatnonzero(areas >= MIN_AREA)
            objects = rng.permutation(visible[visible > 0])[:max_objects]
            if len(objects):
                break
        return Window(np.ascontiguousarray(frames), np.ascontiguousarray(labels)[:, None] == objects[:, None, None])


def _draw(folder: Path, seed: int, count: int, index: int) -> None:
    arrays = ClipCache(folder, seed, count).arrays
    clip = draw_clip(seed, index)
    height, width = clip.labels.shape[1:]
    arrays["frames"][index, :, :height, :width] = clip.frames
    arrays["labels"][index, :, :height, :width] = clip.labels
    arrays["sizes"][index] = height, width
