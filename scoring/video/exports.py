"""Convert the output of a tracking job to YouTube-VIS json, MOT and MOTS text, and PNG masks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_endpoint.model.errors import BadData
from sam_endpoint.model.masks import to_rle
from sam_endpoint.scoring.overlay import COLOURS
from sam_endpoint.scoring.video.tracks import read_frames, read_notes, read_records, without_overlap

CATEGORY = "object"
MOTS_CLASS = 1  # MOTS numbers objects as class x 1000 + object
MAX_PNG_OBJECT = 255  # a palette has 256 entries, the first for the background


def write_youtube_vis(tracks: Path, output: Path) -> None:
    """Write a video instance segmentation file, as the YouTube-VIS data set has it.

    The file is COCO's with `videos` instead of `images`. An annotation is one object in the whole video, and has lists
    with one entry per frame: `segmentations` (run lengths), `bboxes` and `areas`, null where the object is not visible.

    Args:
        tracks: output of a tracking job.
        output: file to write.

    Raises:
        BadData: `tracks` cannot be read.
        OSError: the file cannot be written.
    """
    length = read_notes(tracks)["frames"]
    objects: dict[int, dict[str, list[Any]]] = defaultdict(
        lambda: {name: [None] * length for name in ("segmentations", "bboxes", "areas", "scores")}
    )
    size = [0, 0]
    for record in read_records(tracks):
        size, thing, frame = record["size"], objects[record["object"]], record["frame"]
        thing["scores"][frame] = record["score"]
        if record["area"]:
            thing["segmentations"][frame] = {"size": size, "counts": record["encoded_binary_mask"]}
            thing["bboxes"][frame], thing["areas"][frame] = record["bbox"], record["area"]
    height, width = size
    names = [f"{tracks.stem}/{frame:05d}.jpg" for frame in range(length)]
    video = {"id": 1, "width": width, "height": height, "length": length, "file_names": names}
    common = {"video_id": 1, "category_id": 1, "iscrowd": 0, "width": width, "height": height, "length": length}
    annotations = [{"id": number, **common, **thing} for number, thing in sorted(objects.items())]
    content = {"videos": [video], "categories": [{"id": 1, "name": CATEGORY}], "annotations": annotations}
    _replace(output, json.dumps(content).encode())


def write_mot(tracks: Path, output: Path) -> None:
    """Write boxes as MOTChallenge text: frame, id, left, top, width, height, score, -1, -1, -1; frames from 1.

    Args:
        tracks: output of a tracking job.
        output: file to write.

    Raises:
        BadData: `tracks` cannot be read.
        OSError: the file cannot be written.
    """
    lines = [
        f"{record['frame'] + 1},{record['object']},"
        + ",".join(f"{value:g}" for value in record["bbox"])
        + f",{record['score']:.6f},-1,-1,-1\n"
        for record in read_records(tracks)
        if record["area"]
    ]
    _replace(output, "".join(lines).encode())


def write_mots(tracks: Path, output: Path) -> None:
    """Write masks as MOTS text: frame, id, class, height, width, run lengths; frames from 1, masks without overlap.

    The id is 1000 x class + object, and the class is 1.

    Args:
        tracks: output of a tracking job.
        output: file to write.

    Raises:
        BadData: `tracks` cannot be read, or an object has a number above 999.
        OSError: the file cannot be written.
    """
    lines = []
    for frame, records in read_frames(tracks):
        for number, mask in without_overlap(records).items():
            if number > 999:
                raise BadData(f"MOTS text has object numbers up to 999; '{tracks}' has {number}")
            if mask.any():
                rle = to_rle(mask)
                height, width = rle["size"]
                identity = MOTS_CLASS * 1000 + number
                lines.append(f"{frame + 1} {identity} {MOTS_CLASS} {height} {width} {rle['counts'].decode()}\n")
    _replace(output, "".join(lines).encode())


def write_png_masks(tracks: Path, output: Path) -> None:
    """Write one palette PNG per frame, 00000.png and so on, as the DAVIS data set has it.

    The value of a pixel is the number of its object, 0 for the background. Frames before the first prompt are empty.

    Args:
        tracks: output of a tracking job.
        output: folder for the files.

    Raises:
        BadData: `tracks` cannot be read, or an object has the number 0 or one above MAX_PNG_OBJECT.
        OSError: a file cannot be written.
    """
    length, size = read_notes(tracks)["frames"], None
    output.mkdir(parents=True, exist_ok=True)
    written = 0
    for frame, records in read_frames(tracks):
        size = tuple(records[0]["size"])
        for empty in range(written, frame):
            _save_png(np.zeros(size, np.uint8), output / f"{empty:05d}.png")
        labels = np.zeros(size, np.uint8)
        for number, mask in without_overlap(records).items():
            if not 1 <= number <= MAX_PNG_OBJECT:
                raise BadData(f"PNG masks have object numbers 1 to {MAX_PNG_OBJECT}; '{tracks}' has {number}")
            labels[mask] = number
        _save_png(labels, output / f"{frame:05d}.png")
        written = frame + 1
    for empty in range(written, length if size else 0):
        _save_png(np.zeros(size or (1, 1), np.uint8), output / f"{empty:05d}.png")


# The exports by the name of their option.
EXPORTS: dict[str, Callable[[Path, Path], None]] = {
    "youtube_vis": write_youtube_vis,
    "mot": write_mot,
    "mots": write_mots,
    "png_masks": write_png_masks,
}


def _save_png(labels: np.ndarray, file: Path) -> None:
    image = Image.fromarray(labels, "P")
    palette = [0, 0, 0] + [part for number in range(MAX_PNG_OBJECT) for part in COLOURS[number % len(COLOURS)]]
    image.putpalette(palette)
    image.save(file)


def _replace(file: Path, content: bytes) -> None:
    """Write a file whole: a reader sees the old content or the new content."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(file)
