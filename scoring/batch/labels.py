"""Convert masks to label formats: COCO, YOLO segmentation, PNG and Label Studio brush tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from sam_endpoint.model import masks
from sam_endpoint.model.errors import BadData
from sam_endpoint.scoring.brush import encode_brush


@dataclass(frozen=True)
class LabelledObject:
    """One labelled object.

    Attributes:
        category: number of the category.
        score: predicted IoU.
        counts: mask as text, in COCO's compressed run-length encoding.
        bbox: x, y, width, height in pixels, as in COCO.
        area: number of pixels.
    """

    category: int
    score: float
    counts: str
    bbox: tuple[float, float, float, float]
    area: int

    @classmethod
    def from_prediction(cls, category: int, prediction: Mapping[str, Any]) -> LabelledObject:
        """Convert a predicted mask to an object.

        Args:
            category: number of the category.
            prediction: an entry of `mask_per_prediction` with the mask encoding `rle`.
        """
        x, y, width, height = prediction["bbox"]
        box = (x, y, width, height)
        return cls(category, prediction["iou_score"], prediction["encoded_binary_mask"], box, prediction["area"])


@dataclass(frozen=True)
class LabelledImage:
    """The objects of one image.

    Attributes:
        name: name of the image.
        size: (height, width) in pixels; (0, 0) if the image has no objects and its size is unknown.
        objects: the objects.
        skipped: for each box without an object, where the box comes from (such as `a.txt line 3`) and the reason.
    """

    name: str
    size: tuple[int, int]
    objects: Sequence[LabelledObject]
    skipped: Sequence[str] = ()

    def mask(self, labelled_object: LabelledObject) -> np.ndarray:
        """Decode the `(H, W)` bool mask of an object."""
        return masks.decode(labelled_object.counts, "rle", self.size)


def to_coco(labelled: Iterable[LabelledImage], names: Mapping[int, str], polygons: bool = False) -> dict[str, Any]:
    """Convert labelled images to a COCO instances file (https://cocodataset.org/#format-data).

    Args:
        labelled: the images and their objects.
        names: names of the categories by number.
        polygons: whether to write masks as polygons, which cannot represent holes, instead of run lengths.

    Returns:
        The content of the JSON file. Each annotation also has a `score`, the predicted IoU.

    Example:
        >>> to_coco([LabelledImage("a.png", (4, 6), [])], {0: "cup"})["images"]
        [{'id': 1, 'file_name': 'a.png', 'height': 4, 'width': 6}]
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in labelled:
        height, width = image.size
        images.append({"id": len(images) + 1, "file_name": image.name})
        if height:
            images[-1].update(height=height, width=width)
        for obj in image.objects:
            outline = masks.to_polygons(image.mask(obj)) if polygons else None
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": obj.category,
                    "segmentation": outline or {"size": [height, width], "counts": obj.counts},
                    "bbox": list(obj.bbox),
                    "area": obj.area,
                    "iscrowd": 0,
                    "score": obj.score,
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def yolo_classes(names: Mapping[int, str]) -> dict[int, str]:
    """Return the names of the YOLO classes by number.

    YOLO numbers classes from 0 without gaps. The classes are in the order of the categories' numbers.

    Example:
        >>> yolo_classes({1: "person", 44: "bottle"})
        {0: 'person', 1: 'bottle'}
    """
    return dict(enumerate(names[number] for number in sorted(names)))


def format_classes(names: Mapping[int, str]) -> str:
    """Return the content of a `classes.txt` file, which has the name of one YOLO class per line.

    Args:
        names: names of all categories by number.

    Raises:
        BadData: a name contains a line break.
    """
    lines = list(yolo_classes(names).values())
    if any(mark in line for line in lines for mark in "\r\n"):
        raise BadData(
            "the name of a category contains a line break, which classes.txt does not allow; rename the category"
        )
    return "".join(f"{line}\n" for line in lines)


def to_yolo(labelled: LabelledImage, names: Mapping[int, str]) -> str:
    r"""Convert an image's objects to a YOLO segmentation file.

    The format is that of Ultralytics (https://docs.ultralytics.com/datasets/segment/): a line `class x1 y1 x2 y2 ...`
    for each object, with coordinates in 0..1. It allows a single outline per object and no holes. Separate parts of an
    object are therefore connected by lines of zero width, as Ultralytics' own converter does.

    Args:
        labelled: the image and its objects.
        names: names of all categories by number; `yolo_classes` assigns the class numbers.

    Returns:
        The content of the text file; empty for an image without objects.

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[2:6, 4:8] = True
        >>> square = LabelledObject.from_prediction(7, {**masks.encode(mask, "rle"), "iou_score": 0.9})
        >>> to_yolo(LabelledImage("a.png", (10, 10), [square]), {7: "cup"})
        '0 0.4 0.2 0.8 0.2 0.8 0.6 0.4 0.6\n'
    """
    height, width = labelled.size
    classes = {number: position for position, number in enumerate(sorted(names))}
    lines = []
    for obj in labelled.objects:
        pieces = [np.reshape(piece, (-1, 2)) for piece in masks.to_polygons(labelled.mask(obj))]
        if pieces:
            outline = _joined(pieces) / (width, height)
            lines.append(f"{classes[obj.category]} " + " ".join(f"{number:.6g}" for number in outline.ravel()))
    return "".join(f"{line}\n" for line in lines)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Join `(N, 2)` outlines into one. Each outline is connected to the previous outlines at the nearest points."""
    pieces = sorted(pieces, key=len, reverse=True)
    whole = pieces[0]
    for piece in pieces[1:]:
        far, nearest = cKDTree(whole).query(piece)
        piece_index = int(far.argmin())
        whole_index = int(nearest[piece_index])
        rotated = np.roll(piece, -piece_index, axis=0)
        whole = np.concatenate([whole[: whole_index + 1], rotated, rotated[:1], whole[whole_index:]])
    return whole


def draw_index_mask(labelled: LabelledImage) -> Image.Image:
    """Draw all objects into one image whose pixel values are object numbers.

    Returns:
        A greyscale image with 8 bits per pixel, or 16 bits for more than 255 objects. Object numbers start at 1 in the
        order of the list; 0 is the background. Where objects overlap, the pixel belongs to the smallest object.
    """
    is_wide = len(labelled.objects) > 255
    canvas = np.zeros(labelled.size, np.uint16 if is_wide else np.uint8)
    for place in sorted(range(len(labelled.objects)), key=lambda place: -labelled.objects[place].area):
        canvas[labelled.mask(labelled.objects[place])] = place + 1
    return Image.fromarray(canvas)


def to_label_studio(
    labelled: Iterable[LabelledImage], names: Mapping[int, str], root: str = ""
) -> list[dict[str, Any]]:
    """Convert labelled images to Label Studio tasks, with masks as predictions that an annotator can correct.

    The labelling config in Label Studio must contain `<Image name="image">` and
    `<BrushLabels name="tag" toName="image">`.

    Args:
        labelled: the images and their objects.
        names: names of the categories by number.
        root: prefix of the images' URLs.

    Returns:
        The tasks, for a JSON file.
    """
    tasks = []
    for image in labelled:
        height, width = image.size
        results = [
            {
                "id": f"{number}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": obj.score,
                "value": {
                    "format": "rle",
                    "rle": list(encode_brush(image.mask(obj))),
                    "brushlabels": [names[obj.category]],
                },
            }
            for number, obj in enumerate(image.objects, 1)
        ]
        tasks.append({"data": {"image": root + image.name}, "predictions": [{"result": results}]})
    return tasks
