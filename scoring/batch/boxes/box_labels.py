"""Boxes from label files, and their assignment to the images of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.batch.boxes import matching
from sam_endpoint.scoring.batch.boxes.matching import ImagePath
from sam_endpoint.scoring.batch.files import printable_name
from sam_endpoint.scoring.batch.label_names import stem

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Detection:
    """One detected object.

    Attributes:
        box: `(4,)` x1, y1, x2, y2 in pixels.
        category: number of the category.
        score: confidence in 0..1.
        origin: source of the box for error messages, such as `annotation 7` or `a.txt line 3`.
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
        skipped: for each unusable box, its origin and the reason.
        sizes: sizes of the image according to the label files, as (height, width) in pixels.
    """

    detections: list[Detection]
    skipped: list[str] = field(default_factory=list)
    sizes: frozenset[Size] = frozenset()


@dataclass(frozen=True)
class ListedImage:
    """An image that label files list.

    Attributes:
        name: name in the label files, for error messages.
        path: path of the image according to the label files.
        read: function that returns the boxes, given the image's (height, width). It raises BadData and OSError.
    """

    name: str
    path: ImagePath
    read: Callable[[Size], ImageBoxes]


@dataclass(frozen=True)
class MatchedBoxes:
    """Label files whose images were found in a folder.

    Attributes:
        by_image: entries of the label files by the image's name in the folder.
        missing: names in the label files without an image in the folder.
        unlisted: names of images in the folder without an entry in the label files.
    """

    by_image: Mapping[str, ListedImage]
    missing: Sequence[str] = ()
    unlisted: Sequence[str] = ()

    def of(self, name: str, size: Size) -> ImageBoxes:
        """Return the boxes of an image.

        Args:
            name: name of the image in the folder.
            size: (height, width) of the image in pixels.

        Returns:
            The boxes; without detections if the label files do not list the image.

        Raises:
            BadData: the image's label file is malformed.
            OSError: the image's label file cannot be read.
        """
        return self.by_image[name].read(size) if name in self.by_image else ImageBoxes([])

    def identity(self, name: str) -> str:
        """Return a hash of an image's boxes in the label files. Empty if the image's label file cannot be read."""
        try:
            boxes = self.of(name, (1, 1))
        except (BadData, OSError):
            return ""
        content = [
            [(detection.box.tolist(), detection.category) for detection in boxes.detections],
            boxes.skipped,
            sorted(boxes.sizes),
        ]
        return hashlib.sha256(repr(content).encode("utf-8", "backslashreplace")).hexdigest()

    def describe(self, where: Path, folder: Path) -> list[str]:
        """Return sentences about the missing and the unlisted images.

        Args:
            where: path of the label files.
            folder: folder of the images.
        """
        lines = []
        if self.missing:
            count = f"{len(self.missing)} of the images that '{where}' lists"
            lines.append(f"not found in '{folder}': {count}, such as '{self.missing[0]}'")
        if self.unlisted:
            count = f"{len(self.unlisted)} of the images in '{folder}'"
            lines.append(f"no entry in '{where}': {count}, such as '{self.unlisted[0]}'")
        return lines


@dataclass(frozen=True)
class BoxLabels:
    """Categories and boxes from label files.

    Attributes:
        where: path of the label files.
        names: names of the categories by number.
        listed: the images in the label files by name.
        has_endings: whether these names have the endings of image files. COCO files list names of images; in YOLO and
            Pascal VOC folders, only the names of the label files are known, which have no such endings.
        skipped: reasons for boxes that do not belong to a listed image.
    """

    where: Path
    names: dict[int, str]
    listed: Mapping[str, ListedImage]
    has_endings: bool = False
    skipped: Sequence[str] = ()

    def of(self, name: str, size: Size) -> ImageBoxes:
        """Return the boxes of a single image, as `MatchedBoxes.of` does. For a folder of images, use `match`."""
        return self._match({name: Path(name)}).of(name, size)

    def match(self, images: Mapping[str, Path], folder: Path) -> MatchedBoxes:
        """Find the images of a folder in the label files.

        Args:
            images: paths of the images, by path relative to the folder.
            folder: the folder, for error messages.

        Returns:
            The entries of the label files by image.

        Raises:
            BadData: the label files list none of the images, or a name matches several images.
        """
        matched = self._match(images)
        if not matched.by_image:
            listed = [printable_name(entry.name) for entry in self.listed.values()]
            image = printable_name(next(iter(images)))
            contents = f"'{folder}', which has {_count_images(len(images))}, such as '{image}'"
            if not listed:
                raise BadData(f"'{self.where}' lists no images of {contents}")
            raise BadData(
                f"'{self.where}' lists {_count_images(len(listed))}, such as '{listed[0]}', but none is in {contents}"
            )
        return matched

    def _match(self, images: Mapping[str, Path]) -> MatchedBoxes:
        keys = {name if self.has_endings else stem(name): name for name in images}
        paths = {key: ImagePath.of(_root(images[name], name), key) for key, name in keys.items()}
        pairs = matching.pair({key: entry.path for key, entry in self.listed.items()}, paths, str(self.where))
        used = set(pairs.values())
        return MatchedBoxes(
            {name: self.listed[pairs[key]] for key, name in keys.items() if key in pairs},
            [printable_name(entry.name) for key, entry in self.listed.items() if key not in used],
            [name for key, name in keys.items() if key not in pairs],
        )


def list_files(folder: Path, files: Sequence[Path], read: Callable[[Path, Size], ImageBoxes]) -> dict[str, ListedImage]:
    """List the images of a folder of label files, in which each file has the name of its image (YOLO, Pascal VOC).

    Args:
        folder: folder of the label files.
        files: the label files.
        read: function that returns the boxes in a label file, given the image's (height, width).

    Returns:
        The images by name, without the ending of the label file.

    Raises:
        BadData: the names of two files differ only in their endings, such as `a.txt` and `a.TXT`.
    """
    listed: dict[str, ListedImage] = {}
    for file in files:
        name = file.relative_to(folder).as_posix()
        key = name[: -len(file.suffix)]
        if key in listed:
            raise BadData(
                f"'{folder}': {printable_name(listed[key].name)} and {printable_name(name)} belong to the same image; "
                "remove one"
            )
        listed[key] = ListedImage(name, ImagePath.of(folder, key), partial(read, file))
    return listed


def _count_images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _root(path: Path, name: str) -> Path:
    """Return the folder that an image's name is relative to."""
    return path.absolute().parents[len(Path(name).parts) - 1]
