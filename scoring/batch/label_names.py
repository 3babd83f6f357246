"""Names of label files: each image has its own, and none lies outside the output folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import sources

CLASSES = "classes"  # classes.txt lists class names, so it cannot hold the labels of an image
# Endings of images, also of kinds that are not read here but can be named in a table.
_ENDINGS = {*sources.IMAGES, ".avif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".mpo", ".pbm", ".pgm", ".pnm", ".ppm"}


def stem(name: str) -> str:
    """Return a name without its image ending; any other suffix, as in `frame.0001`, is part of the name."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _ENDINGS else name


def label_file(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of the label file of an image, by the image's relative name."""
    return folder / f"{stem(name)}{suffix}"


def check(names: Mapping[str, str], where: str) -> None:
    """Check that each image has a label file of its own.

    Args:
        names: names of the images relative to the output folder, by their full names.
        where: the folder or table with the images, for messages.

    Raises:
        BadData: two images would have the same label file, or one that of the class names.
    """
    taken: dict[str, str] = {}
    for full, name in names.items():
        label = stem(name)
        if label in taken:
            raise BadData(f"'{where}': {taken[label]} and {full} would have the same label file; rename one")
        if PurePosixPath(label).name == CLASSES:
            raise BadData(f"'{where}': {full} would have the label file {label}.txt, which lists classes; rename it")
        taken[label] = full
