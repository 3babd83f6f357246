"""Match the names in label files to the images of a folder."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.files import printable_name

# Sibling folders for images and their label files: YOLO's images/ and labels/, Pascal VOC's JPEGImages/ and
# Annotations/. Their names count as equal.
_SIDE_BY_SIDE = {"labels": "images", "annotations": "images", "jpegimages": "images"}
Parts = tuple[str, ...]


@dataclass(frozen=True)
class ImagePath:
    """Path of an image, in its folder or according to a label file.

    Attributes:
        parts: parts of the path as the label file or the folder has it. The path is usually relative.
        absolute: parts of the absolute path. The parts `labels`, `annotations` and `jpegimages` are replaced by
            `images`, so the folders of an image and of its label file are equal.
    """

    parts: Parts
    absolute: Parts

    @classmethod
    def of(cls, folder: Path, name: str) -> ImagePath:
        """Return the path of an image.

        Args:
            folder: folder that a relative name refers to.
            name: relative path, absolute path or URL.
        """
        parts = split(name)
        root = () if is_absolute(name) else folder.absolute().parts
        return cls(parts, tuple(_SIDE_BY_SIDE.get(part.lower(), part) for part in (*root, *parts)))


def split(name: str) -> Parts:
    r"""Split a path or URL into its parts, without `.` and `..`. Windows paths are split on every system.

    Example:
        >>> split("D:\\data\\a.png"), split("https://host/a.png?token=1")
        (('D:', 'data', 'a.png'), ('host', 'a.png'))
    """
    if name.lower().startswith(("http://", "https://")):
        name = name.partition("?")[0]
    _, _, path = name.rpartition("://")
    pieces = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return tuple(piece for piece in pieces if piece not in ("", ".", ".."))


def is_absolute(name: str) -> bool:
    """Return whether a name is an absolute path, on Windows or elsewhere, or a URL."""
    return name.startswith(("/", "\\")) or name[1:2] == ":" or "://" in name


def pair(listed: Mapping[str, ImagePath], images: Mapping[str, ImagePath], where: str) -> dict[str, str]:
    """Match images to the names in label files.

    First, this function matches equal relative paths. It then compares the absolute paths from their ends, and matches
    each remaining name to the image with the most equal parts. The file name alone is enough only if no image with this
    file name has been matched before.

    Args:
        listed: the names in the label files, each with its path.
        images: the names of the images in the folder, each with its path.
        where: path of the label files, for error messages.

    Returns:
        For each matched image, its name in the label files.

    Raises:
        BadData: a name matches several images, or an image matches several names.

    Example:
        >>> listed = {"train/a.png": ImagePath.of(Path("/labels"), "train/a.png")}
        >>> images = {"a.png": ImagePath.of(Path("/photos/train"), "a.png")}
        >>> pair(listed, images, "instances.json")
        {'a.png': 'train/a.png'}
    """
    by_parts = {path.parts: name for name, path in listed.items()}
    pairs: dict[str, str] = {}
    for image, path in images.items():
        name = image if image in listed else by_parts.get(path.parts)
        if name is not None:
            pairs[image] = name
    exact = set(pairs.values())
    matched_files = {listed[name].parts[-1] for name in exact}
    other_names = {name: path for name, path in listed.items() if name not in exact}
    other_images = {image: path for image, path in images.items() if image not in pairs}
    for shared in range(max((len(path.absolute) for path in other_names.values()), default=0), 0, -1):
        groups = _by_end(other_images, shared)
        for end, names in _by_end(other_names, shared).items():
            for is_whole in (True, False):
                if shared == 1 and not is_whole and end[-1] in matched_files:
                    continue  # only the file names are equal, and an image with this file name has been matched before
                candidates = [
                    (name, image)
                    for name in names
                    for image in groups.get(end, ())
                    if name in other_names and image in other_images
                    # First the pairs whose equal parts contain a whole relative path, then the other pairs.
                    if is_whole is (shared >= min(len(other_names[name].parts), len(other_images[image].parts)))
                ]
                for name, image in _unambiguous(candidates, where):
                    pairs[image] = name
                    matched_files.add(end[-1])
                    del other_names[name], other_images[image]
    return pairs


def _by_end(paths: Mapping[str, ImagePath], length: int) -> dict[Parts, list[str]]:
    """Group names by the last `length` parts of their absolute paths."""
    groups: defaultdict[Parts, list[str]] = defaultdict(list)
    for name, path in paths.items():
        if len(path.absolute) >= length:
            groups[path.absolute[-length:]].append(name)
    return groups


def _unambiguous(candidates: Sequence[tuple[str, str]], where: str) -> Sequence[tuple[str, str]]:
    """Return the pairs of listed names and images. Raises BadData if a name or an image occurs in several pairs."""
    images_of: defaultdict[str, list[str]] = defaultdict(list)
    names_of: defaultdict[str, list[str]] = defaultdict(list)
    for name, image in candidates:
        images_of[name].append(image)
        names_of[image].append(name)
    for kind, rivals in (("", images_of), ("the image ", names_of)):
        for subject, choices in rivals.items():
            if len(choices) > 1:
                raise BadData(f"'{where}': {kind}'{printable_name(subject)}' matches {_join(choices)}; rename one")
    return candidates


def _join(names: Sequence[str]) -> str:
    remainder = "" if len(names) <= 3 else f" and {len(names) - 3} more"
    return " and ".join(f"'{printable_name(name)}'" for name in names[:3]) + remainder
