"""Encoding and decoding of masks: the same pixels, and the boxes and areas of pycocotools."""

from __future__ import annotations

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from scipy import ndimage

from sam_endpoint.model import masks
from tests.pictures import iou


def draw_mask(seed: int) -> np.ndarray:
    """Draw one or two filled shapes of more than 1,000 pixels."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("L", (211, 157))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 3))):
        middle = rng.uniform(50, 110, 2)
        turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(24, 48, 9)
        draw.polygon(
            [(middle[0] + r * np.cos(t), middle[1] + r * np.sin(t)) for r, t in zip(radii, turns, strict=True)], fill=1
        )
    mask = np.asarray(canvas) > 0
    assert mask.sum() > 1000
    return mask


EDGE_CASES = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel": np.ones((1, 1), bool),
    "one line": np.ones((1, 300), bool),
    "noise": np.random.default_rng(0).random((40, 31)) > 0.5,
    "corners touch": np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]], bool),
}
ALL = {**EDGE_CASES, **{f"drawn {seed}": draw_mask(seed) for seed in range(12)}}


@pytest.mark.parametrize("encoding", ["png", "rle"])
@pytest.mark.parametrize("name", list(ALL))
def test_png_and_rle_decode_to_the_same_mask(name: str, encoding: str) -> None:
    mask = ALL[name]
    answer = masks.encode(mask, encoding)
    assert answer["size"] == list(mask.shape)
    assert np.array_equal(masks.decode(answer["encoded_binary_mask"], encoding, mask.shape), mask)


def test_png_has_8_bit_grey_values_0_and_255() -> None:
    picture = Image.open(io.BytesIO(base64.b64decode(masks.to_png(ALL["drawn 0"]))))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (211, 157))
    assert set(np.unique(np.asarray(picture))) == {0, 255}


@pytest.mark.parametrize(("top", "rows"), [(0, 40), (1, 40), (300, 40), (700, 40), (1360, 40), (0, 1400), (600, 0)])
def test_png_of_a_mask_among_many_blank_rows(top: int, rows: int) -> None:
    """The checksums are valid for zlib, and the data is hardly longer than if it was compressed in one piece."""
    inside = np.random.default_rng(top).random((rows, 70)) < 0.5
    cropped = masks.CroppedMask(inside, top, 900, (1400, 1000))
    png = base64.b64decode(masks.to_png(cropped))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), cropped.whole() * np.uint8(255))
    start = png.index(b"IDAT") + 4
    data = png[start : start + int.from_bytes(png[start - 8 : start - 4], "big")]
    lines = np.pad(cropped.whole() * np.uint8(255), ((0, 0), (1, 0))).tobytes()
    whole = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    assert zlib.decompress(data) == lines
    assert len(data) < 1.05 * len(whole.compress(lines) + whole.flush()) + 100


@pytest.mark.parametrize("name", list(ALL))
def test_bbox_and_area_equal_those_of_pycocotools(name: str) -> None:
    mask = ALL[name]
    answer = masks.encode(mask, "rle")
    theirs = {"size": answer["size"], "counts": answer["encoded_binary_mask"]}
    assert answer["bbox"] == coco.toBbox(theirs).tolist() and answer["area"] == coco.area(theirs) == mask.sum()
    json.dumps(answer)  # fails unless all numbers are plain Python numbers


@pytest.mark.parametrize("seed", range(12))
def test_polygons_cover_filled_shapes(seed: int) -> None:
    mask = ALL[f"drawn {seed}"]
    polygons = json.loads(masks.encode(mask, "polygon")["encoded_binary_mask"])
    back = coco.decode(coco.merge(coco.frPyObjects(polygons, *mask.shape))).astype(bool)
    assert iou(_without_holes(mask), back) >= 0.98


@pytest.mark.parametrize("name", ["full", "one line", "corners touch", "noise"])
def test_polygons_cover_masks_of_special_shapes(name: str) -> None:
    mask = ALL[name]
    back = masks.decode(masks.encode(mask, "polygon")["encoded_binary_mask"], "polygon", mask.shape)
    assert iou(_without_holes(mask), back) >= 0.98


def test_each_piece_of_a_mask_has_a_polygon() -> None:
    assert masks.to_polygons(EDGE_CASES["empty"]) == []
    assert masks.to_polygons(EDGE_CASES["one pixel"]) == [[0, 0, 1, 0, 1, 1, 0, 1]]
    assert len(masks.to_polygons(EDGE_CASES["corners touch"])) == 5


@pytest.mark.parametrize("seed", range(30))
def test_polygons_are_the_outlines_of_the_pieces(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 24, 2)) < rng.uniform(0.2, 0.9)
    pieces, count = ndimage.label(mask)  # pixels that share an edge
    expected = []
    for piece in range(1, count + 1):
        filled = ndimage.binary_fill_holes(pieces == piece, structure=np.ones((3, 3)))
        y, x = np.argwhere(filled)[0]
        expected.append(([x, y], filled.sum()))
    found = [np.array(polygon).reshape(-1, 2) for polygon in masks.to_polygons(mask)]
    assert [(corners[0].tolist(), area(corners)) for corners in found] == expected
    for corners in found:
        sides = np.roll(corners, -1, 0) - corners
        assert ((sides == 0).sum(1) == 1).all()  # every side is horizontal or vertical, and ends at a corner
        assert ((sides == 0) != (np.roll(sides, 1, 0) == 0)).all()


def area(corners: np.ndarray) -> float:
    """Return the area of a polygon (n, 2) by the shoelace formula."""
    x, y = corners.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def test_a_polygon_fills_a_hole() -> None:
    ring = np.zeros((60, 60), bool)
    ring[5:55, 5:55] = True
    ring[20:40, 20:40] = False
    (outline,) = masks.to_polygons(ring)
    assert sorted(set(outline)) == [5, 55]


def test_logits_keep_their_sign_and_stay_finite() -> None:
    logits = np.array([[-1e9, -0.25], [0.25, 1e9]], np.float32)
    back = np.load(io.BytesIO(base64.b64decode(masks.logits_to_text(logits))))
    assert back.dtype == np.float16 and np.isfinite(back).all() and np.array_equal(back > 0, logits > 0)


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask. Background that touches the outside at a corner is not a hole."""
    return np.asarray(ndimage.binary_fill_holes(mask, structure=np.ones((3, 3))))


def test_run_lengths_of_cropped_masks_equal_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for i in range(400):
        rows, columns = rng.integers(0, 9, 2)
        inside = rng.random((rows, columns)) < rng.random()
        if i % 3 == 0:
            inside[...] = True
        top, left, below, beside = rng.integers(0, 3, 4)
        size = (int(rows + top + below) or 1, int(columns + left + beside) or 1)
        cropped = masks.CroppedMask(inside, int(top), int(left), size)
        expected = coco.encode(np.asfortranarray(cropped.whole().view(np.uint8)))
        assert masks.to_rle(cropped) == expected
        assert masks.encode(cropped, "png") == masks.encode(cropped.whole(), "png")
        assert np.array_equal(masks.decode(masks.to_png(cropped), "png", size), cropped.whole())
        moved = cropped.within(1, 2, (size[0] + 3, size[1] + 4)).whole()
        assert np.array_equal(moved[1 : 1 + size[0], 2 : 2 + size[1]], cropped.whole()) and moved.sum() == inside.sum()
