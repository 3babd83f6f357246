"""Boxes of an image, and what label files say of a folder of images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes import matching
from sam_endpoint.scoring.batch.boxes.matching import Place
from sam_endpoint.scoring.batch.files import shown
from sam_endpoint.scoring.batch.label_names import stem

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels.
        category: number of the category.
        score: confidence in 0..1.
        origin: where the box comes from, such as `annotation 7` or `a.txt line 3`.
    """

    box: np.ndarray
    category: int
    score: float = 1.0
    origin: str = "box"


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes of one image.

    Attributes:
        detections: the boxes.
        skipped: origin and reason of each box that cannot be used.
        sizes: sizes that the label files state for the image, as (height, width) in pixels.
    """

    detections: list[Detection]
    skipped: list[str] = field(default_factory=list)
    sizes: frozenset[Size] = frozenset()


@dataclass(frozen=True)
class Listed:
    """An image that label files list.

    Attributes:
        name: the name as the files have it, for messages.
        place: where the image is, according to the files.
        read: returns the boxes in an image of this size. Raises BadData and OSError if a file is not readable.
    """

    name: str
    place: Place
    read: Callable[[Size], ImageBoxes]


@dataclass(frozen=True)
class Matched:
    """Boxes of the images of a folder.

    Attributes:
        by_image: what the label files list, by the name of the image.
        missing: listed names of images that the folder does not hold.
        unlisted: names of images that the files do not list.
    """

    by_image: Mapping[str, Listed]
    missing: Sequence[str] = ()
    unlisted: Sequence[str] = ()

    def of(self, name: str, size: Size) -> ImageBoxes:
        """Return the boxes in an image; none for an image that is not listed. Raises BadData and OSError."""
        return self.by_image[name].read(size) if name in self.by_image else ImageBoxes([])

    def identity(self, name: str) -> str:
        """Return text that changes with what the label files say of an image."""
        try:
            found = self.of(name, (1, 1))
        except (BadData, OSError):
            return ""
        content = [
            [(item.box.tolist(), item.category) for item in found.detections],
            found.skipped,
            sorted(found.sizes),
        ]
        return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()

    def describe(self, where: Path, folder: Path) -> list[str]:
        """Return a sentence on the missing images and one on the unlisted images, if there are any."""
        lines = []
        if self.missing:
            count = f"{len(self.missing)} of the images that '{where}' names"
            lines.append(f"not found: {count}, such as '{self.missing[0]}', in '{folder}'")
        if self.unlisted:
            count = f"{len(self.unlisted)} of the images in '{folder}'"
            lines.append(f"no entry: {count}, such as '{self.unlisted[0]}', in '{where}'")
        return lines


@dataclass(frozen=True)
class Boxes:
    """Categories and boxes from label files.

    Attributes:
        where: path of the label files.
        names: names of the categories by number.
        listed: the images that the files list, by a name that is comparable with those of images.
        has_endings: whether the listed names end like image files; names of label files do not.
        skipped: reasons for boxes that belong to no listed image.
    """

    where: Path
    names: dict[int, str]
    listed: Mapping[str, Listed]
    has_endings: bool = False
    skipped: Sequence[str] = ()

    def of(self, name: str, size: Size) -> ImageBoxes:
        """Return the boxes in a single image; `match` is for those of a folder. Raises BadData and OSError."""
        return self._match({name: Path(name)}).of(name, size)

    def match(self, images: Mapping[str, Path], folder: Path) -> Matched:
        """Match the listed names with the images of a folder.

        Args:
            images: paths by name relative to the folder.
            folder: the folder, for messages.

        Raises:
            BadData: no image is listed, or names are ambiguous.
        """
        matched = self._match(images)
        if not matched.by_image:
            listed = [shown(item.name) for item in self.listed.values()]
            names = f"{len(listed)} images, such as '{listed[0]}', but none is in" if listed else "no image of"
            image = shown(next(iter(images)))
            raise BadData(f"'{self.where}' names {names} '{folder}', which holds {len(images)}, such as '{image}'")
        return matched

    def _match(self, images: Mapping[str, Path]) -> Matched:
        keys = {name if self.has_endings else stem(name): name for name in images}
        places = {key: Place.of(_root(images[name], name), key) for key, name in keys.items()}
        pairs = matching.pair({key: item.place for key, item in self.listed.items()}, places, str(self.where))
        used = set(pairs.values())
        return Matched(
            {name: self.listed[pairs[key]] for key, name in keys.items() if key in pairs},
            [shown(item.name) for key, item in self.listed.items() if key not in used],
            [name for key, name in keys.items() if key not in pairs],
        )


def list_files(folder: Path, files: Sequence[Path], read: Callable[[Path, Size], ImageBoxes]) -> dict[str, Listed]:
    """Return what label files list that are named like their images, by the images' names without ending.

    Raises:
        BadData: two files have the same name but for upper and lower case of the ending.
    """
    listed: dict[str, Listed] = {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        key = name[: -len(file.suffix)]
        if key in listed:
            raise BadData(f"'{folder}': {shown(listed[key].name)} and {shown(name)} belong to the same image; move one")
        listed[key] = Listed(name, Place.of(folder, key), partial(read, file))
    return listed


def _root(path: Path, name: str) -> Path:
    """Return the folder to which an image's name is relative."""
    return path.absolute().parents[len(Path(name).parts) - 1]
