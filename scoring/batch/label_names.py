"""Name label files after their images, and check that every image gets its own label file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch import sources

CLASSES = "classes"  # classes.txt lists class names, so no image can have a label file of this name
# Endings of image files, including formats that this project does not read but that a table may name.
_ENDINGS = {*sources.IMAGES, ".avif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".mpo", ".pbm", ".pgm", ".pnm", ".ppm"}


def stem(name: str) -> str:
    """Remove the ending of an image file from a name. Other endings are part of the name.

    Example:
        >>> stem("photos/a.jpg"), stem("frame.0001")
        ('photos/a', 'frame.0001')
    """
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in _ENDINGS else name


def label_file(folder: Path, name: str, suffix: str) -> Path:
    """Return the path of an image's label file.

    Args:
        folder: folder of the label files.
        name: path of the image relative to the image folder.
        suffix: ending of the label file, such as `.txt`.
    """
    return folder / f"{stem(name)}{suffix}"


def check(names: Mapping[str, str], where: str) -> None:
    """Check that every image gets its own label file.

    Args:
        names: paths of the images relative to the image folder, by full name.
        where: the folder or table that lists the images, for error messages.

    Raises:
        BadData: two images have the same label file, or an image has the label file `classes.txt`.
    """
    taken: dict[str, str] = {}
    for full, name in names.items():
        label = stem(name)
        if label in taken:
            raise BadData(f"'{where}': {taken[label]} and {full} would have the same label file; rename one")
        if PurePosixPath(label).name == CLASSES:
            raise BadData(f"'{where}': {full} would have the label file {label}.txt, which lists classes; rename it")
        taken[label] = full
