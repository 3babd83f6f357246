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


@dataclass(frozen=True)
class Thing:
    """One labelled object.

    Attributes:
        category: number of the category.
        score: predicted IoU.
        counts: mask as COCO compressed run lengths, decoded to text.
        bbox: x, y, width, height in pixels, as in COCO.
        area: number of pixels.
    """

    category: int
    score: float
    counts: str
    bbox: tuple[float, float, float, float]
    area: int


@dataclass(frozen=True)
class Labelled:
    """The objects of one image.

    Attributes:
        name: name of the image.
        size: (height, width) in pixels; (0, 0) for an image without objects whose size is not known.
        things: the objects.
        skipped: origin and reason of each box that gave no object.
    """

    name: str
    size: tuple[int, int]
    things: Sequence[Thing]
    skipped: Sequence[str] = ()

    def mask(self, thing: Thing) -> np.ndarray:
        """Decode the (h, w) bool mask of an object."""
        return masks.decode(thing.counts, "rle", self.size)


def thing(category: int, answer: Mapping[str, Any]) -> Thing:
    """Convert a predicted mask with the encoding `rle` to an object."""
    x, y, width, height = answer["bbox"]
    box = (x, y, width, height)
    return Thing(category, answer["iou_score"], answer["encoded_binary_mask"], box, answer["area"])


def coco(labelled: Iterable[Labelled], names: Mapping[int, str], polygons: bool = False) -> dict[str, Any]:
    """Return a COCO instances file; masks are run lengths, or polygons, which lose holes."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in labelled:
        height, width = image.size
        images.append({"id": len(images) + 1, "file_name": image.name})
        if height:
            images[-1].update(height=height, width=width)
        for obj in image.things:
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
    """Return the names of YOLO's classes, which are numbered 0..n-1 in the order of the categories' numbers."""
    return dict(enumerate(names[number] for number in sorted(names)))


def classes_text(names: Mapping[int, str]) -> str:
    """Return the content of a `classes.txt`, the names of YOLO's classes. Raises BadData for a name of two lines."""
    lines = list(yolo_classes(names).values())
    if any(mark in line for line in lines for mark in "\r\n"):
        raise BadData("the name of a category has a line break, which classes.txt cannot hold; rename the category")
    return "".join(f"{line}\n" for line in lines)


def yolo(labelled: Labelled, names: Mapping[int, str]) -> str:
    """Return a YOLO segmentation file: one line `class x1 y1 x2 y2 ...` per object, in 0..1, as in Ultralytics.

    The format has one outline per object: separate pieces are connected by lines of zero width, and holes are lost.

    Args:
        labelled: the image and its objects.
        names: names of all categories by number; `yolo_classes` numbers them.
    """
    height, width = labelled.size
    classes = {number: position for position, number in enumerate(sorted(names))}
    lines = []
    for obj in labelled.things:
        pieces = [np.reshape(piece, (-1, 2)) for piece in masks.to_polygons(labelled.mask(obj))]
        if pieces:
            outline = _joined(pieces) / (width, height)
            lines.append(f"{classes[obj.category]} " + " ".join(f"{number:.6g}" for number in outline.ravel()))
    return "".join(f"{line}\n" for line in lines)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Join several outlines into one (n, 2) outline, connecting each to the previous ones at the nearest points."""
    pieces = sorted(pieces, key=len, reverse=True)
    whole = pieces[0]
    for piece in pieces[1:]:
        far, nearest = cKDTree(whole).query(piece)
        piece_index = int(far.argmin())
        whole_index = int(nearest[piece_index])
        rotated = np.roll(piece, -piece_index, axis=0)
        whole = np.concatenate([whole[: whole_index + 1], rotated, rotated[:1], whole[whole_index:]])
    return whole


def numbered(labelled: Labelled) -> Image.Image:
    """Draw an index image of 8 bits, or 16 bits for more than 255 objects.

    Each pixel holds the position of its object in the list, starting at 1, or 0 for the background. Where objects
    overlap, the smallest is on top.
    """
    is_wide = len(labelled.things) > 255
    canvas = np.zeros(labelled.size, np.uint16 if is_wide else np.uint8)
    for place in sorted(range(len(labelled.things)), key=lambda place: -labelled.things[place].area):
        canvas[labelled.mask(labelled.things[place])] = place + 1
    return Image.fromarray(canvas)


def label_studio(labelled: Iterable[Labelled], names: Mapping[int, str], root: str = "") -> list[dict[str, Any]]:
    """Return Label Studio tasks with brush masks as predictions.

    The labelling config must contain `<Image name="image">` and `<BrushLabels name="tag" toName="image">`.

    Args:
        labelled: the images and their objects.
        names: names of the categories by number.
        root: prefix of the image URLs.
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
                    "rle": list(brush(image.mask(obj))),
                    "brushlabels": [names[obj.category]],
                },
            }
            for number, obj in enumerate(image.things, 1)
        ]
        tasks.append({"data": {"image": root + image.name}, "predictions": [{"result": results}]})
    return tasks


def brush(mask: np.ndarray) -> bytes:
    """Encode a (h, w) bool mask as Label Studio brush run lengths of an RGBA image that is 255 inside the mask.

    The format is that of the rle-pack package (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack): 32
    bits for the number of values, 5 bits for the word size - 1, four times 4 bits for a length size - 1; then for each
    run 1 bit (1: run, 0: single values), 2 bits for the index of the length size, the length - 1 and the value.
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    bits = [f"{flat.size * 4:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        remaining = (end - start) * 4
        while remaining:
            run = min(remaining, 2**16)
            choice, size = next((i, size) for i, size in enumerate((3, 4, 8, 16)) if run <= 2**size)
            bits.append(f"1{choice:02b}{run - 1:0{size}b}{value}")
            remaining -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
