"""Make labelled images from the sample photographs: coins from `coins.png`, pasted on parts of other photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sam_endpoint.model import masks
from tests.conftest import ROOT

SIDE = 320  # width and height of an image, in pixels
MIN_COIN = 1000  # minimum area of a coin in pixels; smaller pieces are scratches on the plate
MIN_VISIBLE = 150  # minimum visible area of a coin in an image, in pixels


@dataclass(frozen=True)
class Coin:
    """A coin: its pixels (height, width, 3) uint8 and its mask (height, width) bool."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def cut_coins() -> list[Coin]:
    """Return the coins of the photograph. The mask of a coin contains the pixels that are brighter than the plate."""
    photograph = np.asarray(Image.open(ROOT / "samples" / "coins.png").convert("RGB"))
    grey = ndimage.gaussian_filter(photograph[..., 0].astype(float), 1)
    plate = ndimage.gaussian_filter(ndimage.minimum_filter(grey, 25), 25)
    bright = ndimage.binary_fill_holes(ndimage.binary_closing(grey - plate > 45, iterations=2))
    labels, count = ndimage.label(ndimage.binary_opening(bright, iterations=6))
    coins = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        mask = labels[box] == number
        if mask.sum() >= MIN_COIN:
            coins.append(Coin(photograph[box], mask))
    assert len(coins) == 24 and count >= 24
    return coins


def draw(
    rng: np.random.Generator, coins: Sequence[Coin], grounds: Sequence[NDArray[np.uint8]], faint: bool
) -> tuple[Any, Any]:
    """Draw an image of several coins.

    The coins are turned, stretched, and tinted like the ground below them. They can cover one another. Faint coins are
    hard to distinguish from the ground, so that the embedded model has much to learn.

    Returns:
        The image (SIDE, SIDE, 3) uint8, and a mask (SIDE, SIDE) bool of the visible part of each coin.
    """
    ground = grounds[int(rng.integers(len(grounds)))]
    side = int(rng.integers(90, min(ground.shape[:2])))
    top, left = (int(rng.integers(0, length - side + 1)) for length in ground.shape[:2])
    picture = Image.fromarray(ground[top : top + side, left : left + side]).resize((SIDE, SIDE))
    canvas = np.asarray(picture).astype(np.float32)
    visible: list[NDArray[np.bool_]] = []
    for _ in range(int(rng.integers(2, 6))):
        coin = coins[int(rng.integers(len(coins)))]
        scale, turn = float(rng.uniform(0.8, 2.4)), float(rng.uniform(0, 360))
        height, width = coin.mask.shape
        size = round(width * scale), round(height * scale * float(rng.uniform(0.35, 1)))
        pixels = np.asarray(Image.fromarray(coin.pixels).resize(size).rotate(turn, expand=True)).astype(np.float32)
        mask = Image.fromarray(coin.mask.astype(np.uint8) * 255).resize(size).rotate(turn, expand=True)
        inside = np.asarray(mask) > 127
        height, width = inside.shape
        if max(height, width) >= SIDE:
            continue
        y, x = int(rng.integers(0, SIDE - height)), int(rng.integers(0, SIDE - width))
        part = canvas[y : y + height, x : x + width]
        # A drawn coin has the relief of the photographed coin, and the colours of the ground.
        relief = (pixels - pixels[inside].mean()) * float(rng.uniform(0.5, 1.0))
        ground_share = float(rng.uniform(0, 0.3)) + 0.3 * faint
        contrast = float(rng.uniform(0, 30) if faint else rng.uniform(20, 60))
        tint = part[inside].mean(0) + contrast * float(rng.choice([-1, 1]))
        painted = relief + (1 - ground_share) * tint + ground_share * part
        part[inside] = painted[inside]
        here = np.zeros((SIDE, SIDE), bool)
        here[y : y + height, x : x + width] = inside
        visible = [earlier & ~here for earlier in visible] + [here]
    noisy = canvas + rng.normal(0, 4, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8), [mask for mask in visible if mask.sum() >= MIN_VISIBLE]


def write(
    folder: Path, train: int, held_out: int, seed: int = 1, shuffled: bool = False, faint: bool = False
) -> tuple[Path, Path]:
    """Write a COCO data set for training and one of held-out images, and return their files.

    The data sets have no coin and no ground in common. The held-out images use a third of the coins, and a third of the
    width of the other photographs.

    Args:
        folder: The folder for the images, `train.json` and `held-out.json`.
        train: The number of training images.
        held_out: The number of held-out images.
        seed: The seed of the random draws.
        shuffled: Whether each training image gets the masks of another image.
        faint: Whether the coins are hard to distinguish from the ground.
    """
    folder.mkdir(parents=True, exist_ok=True)
    coins = cut_coins()
    photographs = [np.asarray(Image.open(ROOT / "samples" / f"{n}.jpg").convert("RGB")) for n in ("cat", "coffee")]
    cuts = [photograph.shape[1] * 2 // 3 for photograph in photographs]
    parts = {
        "train": (train, coins[:16], [p[:, :cut] for p, cut in zip(photographs, cuts, strict=True)]),
        "held-out": (held_out, coins[16:], [p[:, cut:] for p, cut in zip(photographs, cuts, strict=True)]),
    }
    files: list[Path] = []
    for name, (count, own_coins, grounds) in parts.items():
        rng = np.random.default_rng([seed, len(files)])
        drawn = [draw(rng, own_coins, grounds, faint) for _ in range(count)]
        if shuffled and name == "train":
            drawn = [(drawn[i][0], drawn[(i + 1) % count][1]) for i in range(count)]
        files.append(write_coco(folder, name, drawn))
    return files[0], files[1]


def write_coco(folder: Path, name: str, drawn: Sequence[tuple[Any, Any]]) -> Path:
    """Write images, and their masks as the COCO file `NAME.json`. Return the COCO file."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "coin"}]}
    for number, (pixels, visible) in enumerate(drawn, 1):
        file_name = f"{name}-{number}.png"
        Image.fromarray(pixels).save(folder / file_name)
        height, width = pixels.shape[:2]
        content["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
        for mask in visible:
            rle = masks.to_rle(mask)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
                    "iscrowd": 0,
                }
            )
    file = folder / f"{name}.json"
    file.write_text(json.dumps(content))
    return file
