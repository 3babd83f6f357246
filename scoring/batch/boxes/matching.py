"""Match the names in label files with the images of a folder."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.files import shown

# Folders that hold the same names side by side: YOLO's images/ and labels/, Pascal VOC's JPEGImages/ and Annotations/.
_SIDE_BY_SIDE = {"labels": "images", "annotations": "images", "jpegimages": "images"}
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where an image is, or where a label file says that it is.

    Attributes:
        parts: parts of the relative path, as it is listed.
        whole: parts of the absolute path.
    """

    parts: Parts
    whole: Parts

    @classmethod
    def of(cls, folder: Path, name: str) -> Place:
        """Return the place of a name that is relative to a folder, or absolute, or a URL."""
        parts = split(name)
        root = () if is_absolute(name) else folder.absolute().parts
        return cls(parts, tuple(_SIDE_BY_SIDE.get(part.lower(), part) for part in (*root, *parts)))


def split(name: str) -> Parts:
    """Return the parts of a path or URL of any system, without `.` and `..`."""
    if name.lower().startswith(("http://", "https://")):
        name = name.partition("?")[0]
    _, _, path = name.rpartition("://")
    pieces = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return tuple(piece for piece in pieces if piece not in ("", ".", ".."))


def is_absolute(name: str) -> bool:
    """Return whether a name is an absolute path of any system, or a URL."""
    return name.startswith(("/", "\\")) or name[1:2] == ":" or "://" in name


def pair(listed: Mapping[str, Place], images: Mapping[str, Place], where: str) -> dict[str, str]:
    """Return the listed name of each image that label files list.

    Equal relative names belong together. Other names belong to the image with which they share the most parts at the
    end of the path. Names that share only the file name, in folders that differ, belong together if the file name is
    unique.

    Args:
        listed: places by name in the label files.
        images: places by name in the folder.
        where: path of the label files, for messages.

    Raises:
        BadData: a name could be several images, or an image several names.
    """
    by_parts = {place.parts: name for name, place in listed.items()}
    pairs: dict[str, str] = {}
    for image, place in images.items():
        name = image if image in listed else by_parts.get(place.parts)
        if name is not None:
            pairs[image] = name
    exact = set(pairs.values())
    matched_files = {listed[name].parts[-1] for name in exact}
    other_names = {name: place for name, place in listed.items() if name not in exact}
    other_images = {image: place for image, place in images.items() if image not in pairs}
    for shared in range(max((len(place.whole) for place in other_names.values()), default=0), 0, -1):
        groups = _by_end(other_images, shared)
        for end, names in _by_end(other_names, shared).items():
            for is_whole in (True, False):
                if shared == 1 and not is_whole and end[-1] in matched_files:
                    continue  # folders tell images of this file name apart, and these folders differ
                candidates = [
                    (name, image)
                    for name in names
                    for image in groups.get(end, ())
                    if name in other_names and image in other_images
                    # Whether all parts are shared that one of the two has.
                    if is_whole is (shared >= min(len(other_names[name].parts), len(other_images[image].parts)))
                ]
                for name, image in _unambiguous(candidates, where):
                    pairs[image] = name
                    matched_files.add(end[-1])
                    del other_names[name], other_images[image]
    return pairs


def _by_end(places: Mapping[str, Place], length: int) -> dict[Parts, list[str]]:
    """Group names by the last parts of their absolute paths."""
    groups: defaultdict[Parts, list[str]] = defaultdict(list)
    for name, place in places.items():
        if len(place.whole) >= length:
            groups[place.whole[-length:]].append(name)
    return groups


def _unambiguous(candidates: Sequence[tuple[str, str]], where: str) -> Sequence[tuple[str, str]]:
    """Return pairs of listed names and images. Raises BadData if a name or an image is in several pairs."""
    images_of: defaultdict[str, list[str]] = defaultdict(list)
    names_of: defaultdict[str, list[str]] = defaultdict(list)
    for name, image in candidates:
        images_of[name].append(image)
        names_of[image].append(name)
    for kind, rivals in (("", images_of), ("the image ", names_of)):
        for subject, choices in rivals.items():
            if len(choices) > 1:
                raise BadData(f"'{where}': {kind}'{shown(subject)}' could be {_either(choices)}; rename one")
    return candidates


def _either(names: Sequence[str]) -> str:
    more = "" if len(names) <= 3 else f" or one of {len(names) - 3} more"
    return " or ".join(f"'{shown(name)}'" for name in names[:3]) + more
