"""How well a checkpoint segments scenes it never saw: `python -m training.evaluate`."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from model.prompts import Prompt
from model.segmenter import Embedding, Segmenter
from scoring.overlay import Shown, overlay, sheet
from training.scenes import Scene, scene

HELD_OUT_SEED = 2
SMALLEST_AREA = 40
MOST_THINGS = 8
SIZES = (("small", 0.0), ("medium", 0.01), ("large", 0.1))  # shares of the image
Mask = NDArray[np.bool_]


def things(drawn: Scene, rng: np.random.Generator) -> list[Mask]:
    """Up to MOST_THINGS visible things of a scene, in drawn order, each a (height, width) mask of 40 pixels or more."""
    visible = drawn.things()
    areas = np.bincount(visible.ravel(), minlength=256)
    areas[0] = 0
    found = rng.permutation(np.flatnonzero(areas >= SMALLEST_AREA))[:MOST_THINGS]
    return [visible == label for label in found]


def centre(region: Mask) -> tuple[int, int]:
    """x, y of the pixel deepest inside a (height, width) region, by octagonal distance: crosses and squares are peeled
    off in turn."""
    depth = np.zeros(region.shape, dtype=np.int32)
    left = np.pad(region, 1)
    square = False
    while left.any():
        depth += left[1:-1, 1:-1]
        inner = left[1:-1, 1:-1] & left[:-2, 1:-1] & left[2:, 1:-1] & left[1:-1, :-2] & left[1:-1, 2:]
        if square:
            inner &= left[:-2, :-2] & left[:-2, 2:] & left[2:, :-2] & left[2:, 2:]
        left, square = np.pad(inner, 1), not square
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def next_click(true: Mask, found: Mask) -> tuple[tuple[int, int], int]:
    """The next click where the papers place it: the centre of the larger error, with label 1 if that was missed and
    0 if it was found too much."""
    missed, extra = true & ~found, found & ~true
    if missed.sum() >= extra.sum():
        return centre(missed if missed.any() else true), 1
    return centre(extra), 0


def iou(a: Mask, b: Mask) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def box_of(true: Mask) -> NDArray[np.float32]:
    """x1, y1, x2, y2 around a (height, width) mask, (4,) float32."""
    rows, columns = np.flatnonzero(true.any(1)), np.flatnonzero(true.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def judge(segmenter: Segmenter, embedding: Embedding, true: Mask) -> dict[str, float]:
    """IoU of one thing from its box, one click and three clicks, and how far the predicted scores were off."""
    figures: dict[str, float] = {}
    single = segmenter.segment(embedding, [Prompt(box=box_of(true))], multimask_output=False)[0]
    figures["box"] = iou(segmenter.masks(single)[0], true)
    errors = [abs(figures["box"] - float(single.scores[0]))]
    boxed = segmenter.segment(embedding, [Prompt(box=box_of(true))])[0]
    figures["box best of 3"] = iou(segmenter.masks(boxed)[boxed.scores.argmax()], true)

    points, labels = [centre(true)], [1]
    prompt = Prompt(np.array(points, np.float32), np.array(labels))
    answer = segmenter.segment(embedding, [prompt])[0]
    masks = segmenter.masks(answer)
    best = int(answer.scores.argmax())
    figures["1 click"] = iou(masks[best], true)
    figures["1 click, oracle"] = max(iou(mask, true) for mask in masks)
    errors.append(abs(figures["1 click"] - float(answer.scores[best])))
    for clicks in (2, 3):
        point, label = next_click(true, masks[best])
        points.append(point)
        labels.append(label)
        low_res = answer.logits[best].float().cpu().numpy()
        prompt = Prompt(np.array(points, np.float32), np.array(labels), mask=low_res)
        answer, best = segmenter.segment(embedding, [prompt], multimask_output=False)[0], 0
        masks = segmenter.masks(answer)
        figures[f"{clicks} clicks"] = iou(masks[0], true)
    errors.append(abs(figures["3 clicks"] - float(answer.scores[0])))
    figures["score error"] = float(np.mean(errors))
    return figures


def evaluate(segmenter: Segmenter, count: int, seed: int = HELD_OUT_SEED) -> dict[str, dict[str, float]]:
    """Mean figures of `judge` over the things in `count` scenes: of all, and by size (share of the image)."""
    gathered: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index in tqdm(range(count), unit="scene", desc="judging", disable=None):
        drawn = scene(seed, index)
        embedding = segmenter.embed([drawn.image])[0]
        for true in things(drawn, np.random.default_rng([seed, index])):
            size = [name for name, least in SIZES if true.mean() >= least][-1]
            for name, figure in judge(segmenter, embedding, true).items():
                gathered["all"][name].append(figure)
                gathered[size][name].append(figure)
    report = {}
    for group in ("all", *(name for name, _ in SIZES)):
        if group in gathered:
            means = {name: round(float(np.mean(figures)), 4) for name, figures in gathered[group].items()}
            report[group] = {"things": len(gathered[group]["box"]), **means}
    return report


def picture(segmenter: Segmenter, count: int, seed: int = HELD_OUT_SEED) -> Image.Image:
    """A sheet of the first `count` scenes with the mask of every thing, found from its box."""
    pictures = []
    for index in range(count):
        drawn = scene(seed, index)
        boxes = [box_of(true) for true in things(drawn, np.random.default_rng([seed, index]))]
        (embedding,) = segmenter.embed([drawn.image])
        found = segmenter.segment(embedding, [Prompt(box=box) for box in boxes], multimask_output=False)
        shown = [
            Shown(segmenter.masks(one)[0], float(one.scores[0]), box) for one, box in zip(found, boxes, strict=True)
        ]
        pictures.append(overlay(drawn.image, shown))
    return sheet(pictures, columns=4)


def table(report: dict[str, dict[str, float]]) -> str:
    """The report as lines of text, a figure a line, a group a column."""
    names = list(report["all"])
    lines = [f"{'':18}" + "".join(f"{group:>9}" for group in report)]
    for name in names:
        cells = (f"{row[name]:9.0f}" if name == "things" else f"{row[name]:9.3f}" for row in report.values())
        lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="checkpoints/sam-tiny", help="Hugging Face id or folder")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--device", help="cuda or cpu (default: cuda when there is one)")
    parser.add_argument("--output", type=Path, help="also write the figures into this .json")
    parser.add_argument("--sheet", type=Path, help="also draw the first scenes with their masks into this .png")
    args = parser.parse_args()
    segmenter = Segmenter.load(args.checkpoint, args.device)
    report = evaluate(segmenter, args.scenes)
    print(table(report))
    if args.output:
        settings = {"checkpoint": Path(args.checkpoint).name, "scenes": args.scenes, "seed": HELD_OUT_SEED}
        args.output.write_text(json.dumps({**settings, "figures": report}, indent=2) + "\n")
    if args.sheet:
        picture(segmenter, min(8, args.scenes)).save(args.sheet)


if __name__ == "__main__":
    main()
