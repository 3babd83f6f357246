"""Read a folder in the layout of the DAVIS data sets as clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from sam_endpoint.evaluation.clips.clip import Clip
from sam_endpoint.model.errors import BadData
from sam_endpoint.model.video import VideoLimits, open_video
from sam_endpoint.model.video.folder import frame_order
from sam_endpoint.scoring.batch.progress import tracked

FRAMES, MASKS = "JPEGImages", "Annotations"
VOID = 255  # a pixel whose object is unknown


def is_davis_folder(folder: Path) -> bool:
    """Return whether a folder has the subfolders of DAVIS."""
    return (folder / FRAMES).is_dir() and (folder / MASKS).is_dir()


def read_davis(folder: Path, count: int = 0) -> Iterator[tuple[str, Clip]]:
    """Read the videos of a data set in alphabetical order, and show the progress.

    `Annotations/.../NAME/00000.png` has the numbers of the objects in the first frame of
    `JPEGImages/.../NAME/00000.jpg`, and so on. Between the two names there may be a folder for the resolution.

    Args:
        folder: The folder of the data set.
        count: The number of videos; 0 for all.

    Yields:
        The name and the frames of each video.

    Raises:
        BadData: The folder has no videos, or a video has not one mask for each frame.
        BadInput: A frame cannot be read.
    """
    masks = sorted({file.parent for file in (folder / MASKS).rglob("*.png")}, key=lambda path: path.name)
    if not masks:
        raise BadData(f"'{folder / MASKS}' holds no .png files")
    for path in tracked(masks[: count or None], "evaluating", "clip"):
        relative = path.relative_to(folder / MASKS)
        frames = folder / FRAMES / relative
        files = sorted(path.glob("*.png"), key=lambda file: frame_order(file.name))
        if not frames.is_dir():
            raise BadData(f"expected the frames of '{relative}' in '{frames}', got no such folder")
        video = open_video(frames, VideoLimits())
        if video.count != len(files):
            raise BadData(f"expected one mask per frame of '{relative}', got {len(files)} for {video.count}")
        labels = []
        for file in files:
            label = np.asarray(Image.open(file))
            if label.shape != video.size:
                raise BadData(f"expected a palette or grey image of {video.size[1]} x {video.size[0]} in '{file}'")
            labels.append(np.where(label == VOID, 0, label).astype(np.uint8))
        yield str(relative), Clip(np.stack([frame.pixels for frame in video.frames()]), np.stack(labels))
