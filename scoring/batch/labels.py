"""Masks as label files: COCO, YOLO segmentation, PNG, Label Studio's brush tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from model import masks


@dataclass(frozen=True)
class Thing:
    """One labelled object: its category's number, its score, and its mask as COCO's compressed run lengths, as text.

    bbox is COCO's x, y, width, height and area a number of pixels.
    """

    category: int
    score: float
    counts: str
    bbox: tuple[float, float, float, float]
    area: int


@dataclass(frozen=True)
class Labelled:
    """An image's name, size (height, width) and objects."""

    name: str
    size: tuple[int, int]
    things: Sequence[Thing]

    def mask(self, thing: Thing) -> np.ndarray:
        """The (h, w) bool mask of one of the objects."""
        return masks.decode(thing.counts, "rle", self.size)


def thing(category: int, answer: Mapping[str, Any]) -> Thing:
    """The object of an answer whose mask is encoded as run lengths."""
    x, y, width, height = answer["bbox"]
    box = (x, y, width, height)
    return Thing(category, answer["iou_score"], answer["encoded_binary_mask"], box, answer["area"])


def coco(labelled: Iterable[Labelled], names: Mapping[int, str], polygons: bool = False) -> dict[str, Any]:
    """A COCO instances file. Masks are run lengths, or polygons (outlines: holes are lost)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in labelled:
        height, width = image.size
        images.append({"id": len(images) + 1, "file_name": image.name, "height": height, "width": width})
        for one in image.things:
            outline = masks.to_polygons(image.mask(one)) if polygons else None
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": one.category,
                    "segmentation": outline or {"size": [height, width], "counts": one.counts},
                    "bbox": list(one.bbox),
                    "area": one.area,
                    "iscrowd": 0,
                    "score": one.score,
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in sorted(names.items())]
    return {"images": images, "annotations": annotations, "categories": categories}


def yolo(labelled: Labelled) -> str:
    """A line an object, `class x1 y1 x2 y2 ...` in 0..1, as Ultralytics reads and writes it.

    The format has one outline an object: separate pieces are joined by lines there and back, and holes are lost.
    """
    height, width = labelled.size
    lines = []
    for one in labelled.things:
        pieces = [np.reshape(piece, (-1, 2)) for piece in masks.to_polygons(labelled.mask(one))]
        if pieces:
            outline = _joined(pieces) / (width, height)
            lines.append(f"{one.category} " + " ".join(f"{number:.6g}" for number in outline.ravel()))
    return "".join(f"{line}\n" for line in lines)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """One outline (n, 2) of several, each joined to those before it where they are nearest."""
    pieces = sorted(pieces, key=len, reverse=True)
    whole = pieces[0]
    for piece in pieces[1:]:
        far, nearest = cKDTree(whole).query(piece)
        there = int(far.argmin())
        here = int(nearest[there])
        around = np.roll(piece, -there, axis=0)
        whole = np.concatenate([whole[: here + 1], around, around[:1], whole[here:]])
    return whole


def numbered(labelled: Labelled) -> Image.Image:
    """A picture of 8 or 16 bit in which each pixel has its object's place in the list, from 1; 0 is none of them.

    Where objects overlap, the smaller one is on top.
    """
    many = len(labelled.things) > 255
    canvas = np.zeros(labelled.size, np.uint16 if many else np.uint8)
    for place in sorted(range(len(labelled.things)), key=lambda place: -labelled.things[place].area):
        canvas[labelled.mask(labelled.things[place])] = place + 1
    return Image.fromarray(canvas)


def label_studio(labelled: Iterable[Labelled], names: Mapping[int, str], root: str = "") -> list[dict[str, Any]]:
    """Tasks with brush masks as predictions, for a labelling config with `<Image name="image">` and
    `<BrushLabels name="tag" toName="image">`.

    root: what stands before an image's name in its URL.
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
                "score": one.score,
                "value": {
                    "format": "rle",
                    "rle": list(brush(image.mask(one))),
                    "brushlabels": [names[one.category]],
                },
            }
            for number, one in enumerate(image.things, 1)
        ]
        tasks.append({"data": {"image": root + image.name}, "predictions": [{"result": results}]})
    return tasks


def brush(mask: np.ndarray) -> bytes:
    """A (h, w) bool mask as Label Studio's brush run lengths, of the RGBA picture that has 255 where the mask is.

    The format is that of the rle-pack package (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack): 32
    bits number of values, 5 bits word size - 1, four times 4 bits length size - 1; then for each run a bit (1: run, 0:
    that many single values), 2 bits which length size, the length - 1 and the value.
    """
    flat = mask.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    bits = [f"{flat.size * 4:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in (3, 4, 8, 16))]
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        left = (end - start) * 4
        while left:
            run = min(left, 2**16)
            choice, size = next((i, size) for i, size in enumerate((3, 4, 8, 16)) if run <= 2**size)
            bits.append(f"1{choice:02b}{run - 1:0{size}b}{value}")
            left -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
